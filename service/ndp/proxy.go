package ndp

import (
	"slices"
	"time"

	"gangway/service/ndp/message"
)

// listenToNeighbours listens to those on the links that guests share, and no longer to others.
func (r *Room) listenToNeighbours() {
	for name, u := range r.uplinks {
		shared := slices.ContainsFunc(r.sharing[name], func(n *network) bool { return n.served.spec.Proxy })
		switch {
		case !shared:
			u.hush()
			u.questions = questions{}
		case u.ear == nil:
			if err := r.hearken(u); err != nil {
				r.log.Warn("neighbours can't be heard", "interface", name, "error", err)
			}
		}
	}
}

// hearken begins to listen to the uplink's neighbours: to all groups, for those at which guests are asked
// for (RFC 4291 2.7.1) are not the host's.
func (r *Room) hearken(u *uplink) error {
	l, err := listen(u.listener.index, filterFor(false, message.TypeNeighborSolicitation, message.TypeNeighborAdvertisement), allGroups)
	if err != nil {
		return err
	}
	u.ear = l
	r.running.Go(func() {
		err := l.receive(guestFrame, func(frame []byte) { r.overheardNeighbour(u, l, frame) })
		r.mu.Lock()
		defer r.mu.Unlock()
		if err != nil && u.ear == l {
			r.log.Warn("cannot listen to neighbours", "interface", u.name, "error", err)
			u.hush()
		}
	})
	return nil
}

// overheardNeighbour is called with each frame on an uplink that may be a neighbour's solicitation or advertisement.
func (r *Room) overheardNeighbour(u *uplink, l *listener, frame []byte) {
	f, err := message.ParseFrame(frame)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// An access point sends a station's own multicast back.
	if r.closed || u.ear != l || f.Source == u.mac {
		return
	}
	switch f.Type() {
	case message.TypeNeighborSolicitation:
		if s, err := message.ParseNeighborSolicitation(f); err == nil {
			r.neighbourAsks(u, s, r.now())
		}
	case message.TypeNeighborAdvertisement:
		if a, err := message.ParseNeighborAdvertisement(f); err == nil {
			r.refuteClaims(u.name, nil, a)
		}
	}
}

// neighbourAsks is called with each solicitation on an uplink. For guests that are known, the kernel answers.
func (r *Room) neighbourAsks(u *uplink, s *message.NeighborSolicitation, now time.Time) {
	if !u.cache.shared(s.Target) {
		return
	}
	sharing := r.sharing[u.name]
	if s.Duplicate() && r.claimed(sharing, s) {
		return
	}
	for _, n := range sharing {
		if n.served.host[s.Target] {
			return
		}
	}
	who := asker{s.From, s.MAC}
	for _, n := range sharing {
		if _, known := n.neighbours.list[s.Target]; known {
			if !r.answered[kernelProxy{s.Target, u.listener.index}] {
				u.questions.ask(s.Target, who, now)
				r.found(u, n, s.Target)
			}
			return
		}
	}
	if !u.questions.ask(s.Target, who, now) {
		return
	}
	for _, n := range sharing {
		if n.served.spec.Proxy {
			key := n.served.key
			r.toGuests(n, message.Solicit(key.address, key.mac, s.Target, message.MAC{}).Marshal())
		}
	}
}

// claimed passes a neighbour's question whether an address is free on to those guests that are just asking for
// it themselves, so that both know. It tells whether there are any.
func (r *Room) claimed(sharing []*network, s *message.NeighborSolicitation) (any bool) {
	for _, n := range sharing {
		if c := n.claims[s.Target]; c != nil {
			any = true
			delete(n.claims, s.Target) // neither will have it
			asked := *s
			asked.MAC = n.served.key.mac
			r.grumble(r.sendAll(c.port, [][]byte{asked.Frame(message.Multicast(s.To)).Marshal()}))
		}
	}
	return any
}
