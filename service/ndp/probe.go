package ndp

import (
	"net/netip"
	"time"

	"gangway/service/ndp/message"
)

// A guest that wasn't heard for probePause is asked whether it is still there, again after each of them, and
// forgotten when it missed probeMisses; each disputePause if another one wants the address.
const (
	probePause   = time.Minute
	probeMisses  = 3
	disputePause = time.Second
)

// probeBy has who is to be asked looked for at that time at the latest.
func (n *neighbours) probeBy(t time.Time) {
	if n.probed {
		n.nextProbe = earlier(n.nextProbe, t)
	}
}

// silent returns who is to be asked now, which counts as done, and whether anybody is known no longer, or
// somebody else.
func (n *neighbours) silent(now time.Time, pause time.Duration) (ask []netip.Addr, changed bool) {
	if n.nextProbe.IsZero() || now.Before(n.nextProbe) {
		return nil, false
	}
	n.nextProbe = time.Time{}
	for a, g := range n.list {
		if due := g.due(pause); now.Before(due) {
			n.probeBy(due)
			continue
		}
		if g.missed >= probeMisses {
			n.remove(a, g)
			if g.rival != nil && g.rival.mac != (message.MAC{}) {
				n.take(a, g.rival.mac, g.rival.port, now)
				n.probeBy(now.Add(pause))
			}
			changed = true
			continue
		}
		g.missed++
		g.asked = now
		n.list[a] = g
		n.probeBy(g.due(pause))
		ask = append(ask, a)
	}
	return ask, changed
}

// due is when a guest is to be asked, or given up.
func (g neighbour) due(pause time.Duration) time.Time {
	switch {
	case g.rival != nil && g.asked.IsZero():
		return g.seen // at once
	case g.rival != nil:
		return g.asked.Add(disputePause)
	case g.asked.After(g.seen):
		return g.asked.Add(pause)
	}
	return g.seen.Add(pause)
}

// probe asks those guests that weren't heard for long; not for addresses that are of no use any more, which
// are forgotten so. It tells whether one is known no longer.
func (r *Room) probe(n *network, now time.Time) (changed bool) {
	ask, changed := n.neighbours.silent(now, r.probing)
	if len(ask) == 0 {
		return changed
	}
	key, scope := n.served.key, r.scope(n)
	for _, a := range ask {
		if !contains(scope, a) {
			continue
		}
		g := n.neighbours.list[a]
		frame := message.Solicit(key.address, key.mac, a, g.mac).Marshal()
		if n.ports[g.port] != nil {
			r.grumble(r.sendAll(g.port, [][]byte{frame}))
			continue
		}
		r.toGuests(n, frame)
	}
	return changed
}

// toGuests sends a frame to each of the network's guest ports alone.
func (r *Room) toGuests(n *network, frame []byte) {
	for index := range n.ports {
		r.grumble(r.sendAll(index, [][]byte{frame}))
	}
}

func (r *Room) grumble(err error) {
	if err != nil {
		r.log.Debug("cannot pass on a neighbour's question or answer", "error", err)
	}
}
