package ndp

import (
	"time"
)

// pokePause is the least time between two pokes: a link that floods us with news is looked at no more
// often.
const pokePause = 100 * time.Millisecond

// saveDelay is how long news of a router's options may wait for the disk: a withdrawal by what it said
// before is nearly as good.
const saveDelay = 5 * time.Second

// run does what is due, whenever it is, and pokes.
func (r *Room) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-r.closing:
			return
		case <-r.wake:
		case <-timer.C:
		}
		r.mu.Lock()
		if r.closed {
			r.mu.Unlock()
			return
		}
		now := r.now()
		next := r.tick(now)
		reason := ""
		if r.changed != "" {
			if due := r.poked.Add(pokePause); now.Before(due) {
				next = earlier(next, due)
			} else {
				reason, r.changed, r.poked = r.changed, "", now
			}
		}
		r.mu.Unlock()
		if reason != "" {
			r.poke(reason)
		}
		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(next.Sub(now), 0))
		}
	}
}

// hurry has run look at what is due.
func (r *Room) hurry() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// news has whoever watches poked.
func (r *Room) news(reason string) {
	r.changed = reason
	r.hurry()
}

// tick does what is due and returns when something else will be; zero for never.
func (r *Room) tick(now time.Time) (next time.Time) {
	for name, u := range r.uplinks {
		if u.pass(now) {
			r.news("routers of " + name)
			u.review = true
		}
		next = earlier(next, r.reviewUplink(u, now))
		if u.due(now) {
			r.solicit(u)
		}
		next = earlier(next, u.next())
	}
	for name, n := range r.networks {
		if n.expire(now) {
			r.dirty = true
			r.saveBy = earlier(r.saveBy, now.Add(saveDelay))
			r.news("withdrawals of " + name + " are over")
		}
		r.repeat(n, now)
		r.restore(n, now)
		r.tellLink(n, now)
		next = earlier(next, r.serveDue(name, n, now))
		next = earlier(next, n.next())
	}
	if !r.saveBy.IsZero() && !now.Before(r.saveBy) {
		if err := r.save(); err != nil {
			r.log.Error("memory is not up to date", "error", err)
			r.saveBy = now.Add(saveDelay)
		}
	}
	return earlier(next, r.saveBy)
}

// next is when the network has something due; zero for never.
func (n *network) next() time.Time {
	var next time.Time
	for _, l := range n.lessons {
		next = earlier(next, l.next())
	}
	for _, t := range n.repeats {
		next = earlier(next, t)
	}
	for _, p := range n.ports {
		next = earlier(next, p.again)
	}
	if len(n.tellings) > 0 {
		next = earlier(next, n.tellings[0])
	}
	if n.announced != nil {
		next = earlier(next, n.announced.restore)
	}
	return next
}
