package ndp

import (
	"time"
)

// reviewPause is how often is looked at what an uplink's routers say.
const reviewPause = 100 * time.Millisecond

// reviewUplink looks whether the bridges that serve guests with an uplink's prefixes have something new
// to say, and has its routers asked again before their word is no longer good. It returns when to come
// back, zero for not before something is heard.
func (r *Room) reviewUplink(u *uplink, now time.Time) (next time.Time) {
	networks := r.sharing[u.name]
	if len(networks) == 0 {
		u.review = false
		return time.Time{}
	}
	if !u.renew.IsZero() && !now.Before(u.renew) {
		u.renewFrom(now)
		u.askSoon(now)
		if u.due(now) {
			r.solicit(u)
		}
	}
	next = u.renew
	if !u.review {
		return next
	}
	if again := u.reviewed.Add(reviewPause); !u.reviewed.IsZero() && now.Before(again) {
		return earlier(next, again)
	}
	u.review, u.reviewed = false, now
	for _, n := range networks {
		r.review(n, now)
	}
	return next
}

// review has guests told of what is new: of routers and prefixes at once, of all else not more often than
// each three seconds.
func (r *Room) review(n *network, now time.Time) {
	s := n.served
	if s == nil {
		return
	}
	c := r.compose(n, now)
	if c == nil {
		return
	}
	for port, asked := range s.waiting {
		delete(s.waiting, port)
		if n.ports[port] != nil {
			r.answer(n, port, asked, now)
		}
	}
	switch {
	case !s.announced:
	case c.offers != s.said.offers:
		if err := r.advertise(n, now); err != nil {
			r.log.Warn("guests were not told what is new", "network", s.spec.Network, "error", err)
		}
	case c.all != s.said.all:
		due := s.sent.Add(hushed)
		if due.Before(now) {
			due = now
		}
		s.due = earlier(s.due, due)
	}
	r.hurry()
}

// serveDue does what is due for a network that its bridge serves, and returns when something else
// will be.
func (r *Room) serveDue(name string, n *network, now time.Time) (next time.Time) {
	s := n.served
	if s == nil {
		return time.Time{}
	}
	if s.announced && !s.due.IsZero() && !now.Before(s.due) {
		if err := r.advertise(n, now); err != nil {
			r.log.Warn("guests were not told again", "network", name, "error", err)
		}
	}
	if s.announced {
		next = s.due
	}
	if !n.learns() {
		return next
	}
	if r.settleClaims(n, now) {
		r.news("neighbours of " + name)
	}
	for _, c := range n.claims {
		next = earlier(next, c.until)
	}
	if r.probe(n, now) {
		r.news("neighbours of " + name)
	}
	return earlier(next, n.neighbours.nextProbe)
}

// share notes which networks share which uplink.
func (r *Room) share() {
	r.sharing = map[string][]*network{}
	for _, n := range r.networks {
		if n.learns() {
			name := n.served.spec.Uplink
			r.sharing[name] = append(r.sharing[name], n)
		}
	}
}

// leastLeft is how long a default router must have left to be asked again, in half of it.
const leastLeft = 20 * time.Second

// renewFrom plans to solicit when half of what the default routers have left is over.
func (u *uplink) renewFrom(now time.Time) {
	var last time.Time
	for _, r := range u.cache {
		if r.until.After(last) {
			last = r.until
		}
	}
	u.renew = time.Time{}
	if left := last.Sub(now); !last.IsZero() && left >= leastLeft {
		u.renew = now.Add(left / 2)
	}
}
