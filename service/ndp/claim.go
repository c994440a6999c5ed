package ndp

import (
	"net/netip"
	"time"

	"gangway/service/ndp/message"
)

// Guests ask whether an address is free (RFC 4862 5.4), and are told by the whole link: for this long
// an answer is waited for (RFC 4861 10: RETRANS_TIMER), so many of a network at once.
const (
	claimTime = time.Second
	maxClaims = 256
)

// How many of a port's questions are passed on to the link: so many at once, and again one each pause.
const (
	claimBurst = 64
	claimPause = 100 * time.Millisecond
)

// claim is an address that a guest will have unless somebody says that he has it.
type claim struct {
	port  int
	mac   message.MAC
	until time.Time
}

// dropClaims forgets those of a port that is gone.
func (n *network) dropClaims(port int) {
	for a, c := range n.claims {
		if c.port == port {
			delete(n.claims, a)
		}
	}
}

// guestAsks is called with each solicitation of a guest whose address is learned.
func (r *Room) guestAsks(n *network, t *tap, s *message.NeighborSolicitation, now time.Time) {
	port := t.listener.index
	if !s.Duplicate() {
		r.guestHas(n, port, s.From, s.MAC, now)
		return
	}
	if !contains(r.scope(n), s.Target) {
		return
	}
	if n.served.host[s.Target] {
		r.defend(n, port, s.Target)
		return
	}
	if holder, known := n.neighbours.list[s.Target]; known && holder.mac != s.MAC && holder.mac != (message.MAC{}) {
		n.neighbours.take(s.Target, s.MAC, port, now) // it will answer, or lose the address
		r.hurry()
		return
	}
	if !t.claims.take(now, claimBurst, claimPause) {
		return
	}
	if c := n.claims[s.Target]; c == nil {
		if len(n.claims) >= maxClaims {
			return
		}
		until := now.Add(claimTime)
		if !n.served.spec.Proxy && len(r.sharing[n.served.spec.Uplink]) == 1 {
			until = now // nobody is asked who isn't on the bridge
		}
		n.claims[s.Target] = &claim{port, s.MAC, until}
		r.hurry()
	} else if c.mac != s.MAC {
		delete(n.claims, s.Target) // both hear each other: neither will have it
		return
	}
	r.relayClaim(n, s)
	r.collide(n, port, s)
}

// collide has guests of two networks that ask for the same address at the same time know of each other: the
// others were just asked.
func (r *Room) collide(n *network, port int, s *message.NeighborSolicitation) {
	both := false
	for _, other := range r.sharing[n.served.spec.Uplink] {
		if other != n && other.claims[s.Target] != nil {
			both = true
			delete(other.claims, s.Target)
		}
	}
	if both {
		delete(n.claims, s.Target)
		theirs := *s
		theirs.MAC, theirs.Nonce = n.served.key.mac, nil // with his own, he would ignore it (RFC 7527 4.2)
		r.grumble(r.sendAll(port, [][]byte{theirs.Frame(message.Multicast(s.To)).Marshal()}))
	}
}

// relayClaim asks the uplink's link, and the guests of other networks that share it. They answer to all nodes.
func (r *Room) relayClaim(n *network, s *message.NeighborSolicitation) {
	asked := *s
	group := message.Multicast(s.To)
	if u := r.uplinks[n.served.spec.Uplink]; u != nil && n.served.spec.Proxy && u.mac != (message.MAC{}) {
		asked.MAC = u.mac
		r.grumble(r.sendAll(u.listener.index, [][]byte{asked.Frame(group).Marshal()}))
	}
	for _, other := range r.sharing[n.served.spec.Uplink] {
		if other != n {
			asked.MAC = other.served.key.mac
			r.toGuests(other, asked.Frame(group).Marshal())
		}
	}
}

// defend tells a guest that the host has the address.
func (r *Room) defend(n *network, port int, target netip.Addr) {
	key := n.served.key
	a := message.NeighborAdvertisement{From: key.address, To: message.AllNodes, Target: target, Override: true, Router: true, MAC: key.mac, LinkLayer: key.mac}
	r.grumble(r.sendAll(port, [][]byte{a.Frame(message.Multicast(message.AllNodes)).Marshal()}))
}

// refuteClaims passes an answer on to those guests who asked for the address. They will not have it. It tells
// whether there are any.
func (r *Room) refuteClaims(uplink string, not *network, a *message.NeighborAdvertisement) (any bool) {
	for _, n := range r.sharing[uplink] {
		c := n.claims[a.Target]
		if c == nil || n == not {
			continue
		}
		any = true
		delete(n.claims, a.Target)
		if g, known := n.neighbours.list[a.Target]; known && g.mac == c.mac && n.neighbours.forget(a.Target) {
			r.news("neighbours of " + n.served.spec.Network)
		}
		answer := *a
		answer.MAC, answer.LinkLayer = n.served.key.mac, n.served.key.mac
		answer.To, answer.Solicited = message.AllNodes, false
		r.grumble(r.sendAll(c.port, [][]byte{answer.Frame(message.Multicast(message.AllNodes)).Marshal()}))
	}
	return any
}

// settleClaims notes those that nobody spoke against. It tells whether there are any.
func (r *Room) settleClaims(n *network, now time.Time) (changed bool) {
	for a, c := range n.claims {
		if now.Before(c.until) {
			continue
		}
		delete(n.claims, a)
		if r.mayHave(n, a) && r.heldElsewhere(n, a, now) == nil && n.neighbours.take(a, c.mac, c.port, now) == fresh {
			n.neighbours.probeBy(now.Add(r.probing))
			changed = true
		}
	}
	return changed
}

// heldElsewhere returns the network whose guest has the address, of the others that share the uplink, and has
// that guest asked whether it is still there.
func (r *Room) heldElsewhere(n *network, a netip.Addr, now time.Time) *network {
	for _, other := range r.sharing[n.served.spec.Uplink] {
		if _, known := other.neighbours.list[a]; known && other != n {
			other.neighbours.dispute(a, now)
			return other
		}
	}
	return nil
}

// dispute has the holder of an address asked at once.
func (n *neighbours) dispute(a netip.Addr, now time.Time) {
	if g := n.list[a]; g.rival == nil {
		g.rival, g.missed, g.asked = &rival{}, 0, time.Time{}
		n.list[a] = g
		n.probeBy(now)
	}
}

// guestHas is called when a guest speaks as one that has the address.
func (r *Room) guestHas(n *network, port int, a netip.Addr, mac message.MAC, now time.Time) {
	if !r.mayHave(n, a) || r.heldElsewhere(n, a, now) != nil {
		return
	}
	switch n.neighbours.take(a, mac, port, now) {
	case fresh:
		n.neighbours.probeBy(now.Add(r.probing))
		r.news("neighbours of " + n.served.spec.Network)
	case disputed:
		r.hurry()
	case refused:
		return
	}
	if u := r.uplinks[n.served.spec.Uplink]; u != nil {
		r.found(u, n, a)
	}
}

// guestAnswers is called with each advertisement of a guest whose address is learned.
func (r *Room) guestAnswers(n *network, port int, a *message.NeighborAdvertisement, now time.Time) {
	r.refuteClaims(n.served.spec.Uplink, n, a)
	r.guestHas(n, port, a.Target, a.MAC, now)
}
