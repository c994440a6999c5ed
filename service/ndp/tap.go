package ndp

import (
	"time"

	"gangway/service/ndp/message"
)

// How many solicitations of a port are answered: so many at once, and again each pause.
const (
	answerBurst = 20
	answerPause = 100 * time.Millisecond
)

// tap listens to what guests say behind a port. It is at the port, not at the bridge: there
// one couldn't tell guests from those who are on the uplink's side of the IPv6-only link, and must get no
// answer.
type tap struct {
	network  string
	listener *listener
	dead     bool
	answers  allowance
	claims   allowance
}

// openTap begins to listen to a port of the network.
func (r *Room) openTap(network string, index int) (*tap, error) {
	l, err := listen(index, filterFor(true, message.TypeRouterSolicitation, message.TypeNeighborSolicitation, message.TypeNeighborAdvertisement), noGroups)
	if err != nil {
		return nil, err
	}
	t := &tap{network: network, listener: l}
	r.running.Go(func() {
		err := l.receive(guestFrame, func(frame []byte) { r.overheard(t, frame) })
		r.mu.Lock()
		defer r.mu.Unlock()
		if err != nil && r.taps[index] == t {
			r.log.Debug("cannot listen to guests", "port", index, "error", err)
			t.dead = true
		}
	})
	return t, nil
}

// overheard is called with each frame at a guest's port that may be a solicitation or a
// neighbour's advertisement.
func (r *Room) overheard(t *tap, frame []byte) {
	f, err := message.ParseFrame(frame)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.networks[t.network]
	if r.closed || r.taps[t.listener.index] != t || n == nil {
		return
	}
	now := r.now()
	switch f.Type() {
	case message.TypeRouterSolicitation:
		if s, err := message.ParseRouterSolicitation(f); err == nil && t.mayAnswer(now) {
			r.answer(n, t.listener.index, s, now)
		}
	case message.TypeNeighborSolicitation:
		s, err := message.ParseNeighborSolicitation(f)
		switch {
		case err != nil:
		case n.learns():
			r.guestAsks(n, t, s, now)
		case s.Duplicate():
			n.neighbours.learn(s.Target, s.MAC, t.listener.index, false, now)
		default:
			n.neighbours.learn(s.From, s.MAC, t.listener.index, true, now)
		}
	case message.TypeNeighborAdvertisement:
		a, err := message.ParseNeighborAdvertisement(f)
		switch {
		case err != nil:
		case n.learns():
			r.guestAnswers(n, t.listener.index, a, now)
		default:
			n.neighbours.learn(a.Target, a.MAC, t.listener.index, true, now)
		}
	}
}

// mayAnswer keeps a guest that asks without end from keeping us busy.
func (t *tap) mayAnswer(now time.Time) bool { return t.answers.take(now, answerBurst, answerPause) }

// allowance lets so many of something happen at once, and another one each pause.
type allowance struct {
	spent int
	since time.Time // when spent was last lowered
}

func (a *allowance) take(now time.Time, burst int, pause time.Duration) bool {
	if given := int(now.Sub(a.since) / pause); given > 0 {
		a.spent = max(0, a.spent-given)
		a.since = now
	}
	if a.spent >= burst {
		return false
	}
	a.spent++
	return true
}
