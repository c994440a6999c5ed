package ndp

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"gangway/service/ndp/message"
	"gangway/service/plan"
	"gangway/service/vnet"
)

// rival is who wants to have an address that another guest is known to have.
type rival struct {
	mac  message.MAC
	port int
}

// taken is what came of a guest's taking an address.
type taken int

const (
	refused  taken = iota // there is no room for it
	same                  // it is known to have it
	fresh                 // it has it from now on
	disputed              // another guest has it, and is to be asked
)

// take notes that the guest has the address, unless it is another's: that one is asked first.
func (n *neighbours) take(address netip.Addr, mac message.MAC, port int, now time.Time) taken {
	old, known := n.list[address]
	switch {
	case known && old.mac == mac:
		n.list[address] = neighbour{mac: mac, port: port, seen: now}
		return same
	case known && old.mac != (message.MAC{}):
		if old.rival == nil {
			old.rival = &rival{mac, port}
			old.missed, old.asked = 0, time.Time{}
			n.list[address] = old
			n.probeBy(now)
		}
		return disputed
	case n.counts[mac] >= maxAddresses || !known && len(n.list) >= maxNeighbours:
		return refused
	}
	if known {
		n.remove(address, old)
	}
	n.list[address] = neighbour{mac: mac, port: port, seen: now}
	n.counts[mac]++
	return fresh
}

// forget lets an address go that a guest no longer has. It tells whether it was known.
func (n *neighbours) forget(address netip.Addr) bool {
	old, known := n.list[address]
	if known {
		n.remove(address, old)
	}
	return known
}

// refuse forgets those addresses that can't be guests'.
func (n *neighbours) refuse(not func(netip.Addr) bool) {
	for a, g := range n.list {
		if not(a) {
			n.remove(a, g)
		}
	}
}

// doubt begins asking: whoever is known from an earlier life at once.
func (n *neighbours) doubt(seen time.Time) {
	n.probed = true
	for a, g := range n.list {
		if !a.IsGlobalUnicast() {
			n.remove(a, g)
			continue
		}
		if g.mac == (message.MAC{}) {
			g.seen = seen
			n.list[a] = g
		}
		n.probeBy(g.seen)
	}
}

// settle ends asking.
func (n *neighbours) settle() { n.probed, n.nextProbe = false, time.Time{} }

// recover finds guests again that an earlier life routed to the network's bridge, before anybody takes
// their routes for leftovers.
func (r *Room) recover(n *network, now time.Time) {
	if n.recovered || n.index == 0 {
		return
	}
	n.recovered = true
	for _, route := range r.kernel.Routes6 {
		a := route.Dst.Addr()
		if route.Protocol != plan.Protocol || route.Link != n.index || !route.Dst.IsSingleIP() || !a.Is6() || len(n.neighbours.list) >= maxNeighbours {
			continue
		}
		if _, known := n.neighbours.list[a]; !known {
			n.neighbours.list[a] = neighbour{seen: now}
			n.neighbours.counts[message.MAC{}]++
		}
	}
}

// scope are the prefixes in which guests' addresses are learned: those that the network's bridge
// advertises of the uplink's, and those that guests were taught as long as it isn't known which those are.
func (r *Room) scope(n *network) []netip.Prefix {
	spec := n.served.spec
	if !spec.Proxy {
		return spec.Prefixes
	}
	if u := r.uplinks[spec.Uplink]; u != nil && (u.settled || len(u.cache) > 0) {
		return u.autonomous()
	}
	var list []netip.Prefix
	if l := n.lessons[n.served.key]; l != nil {
		for p := range l.prefixes {
			if p.Bits() == slaacBits {
				list = append(list, p)
			}
		}
	}
	return list
}

// mayHave tells whether a guest of the network may have the address.
func (r *Room) mayHave(n *network, a netip.Addr) bool {
	return contains(r.scope(n), a) && !n.served.host[a]
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// shownNeighbours are the network's guests as others see them.
func (r *Room) shownNeighbours(n *network) []vnet.Neighbour {
	now := r.now()
	n.neighbours.sweep(now)
	var scope []netip.Prefix
	if n.learns() {
		scope = r.scope(n)
	}
	var list []vnet.Neighbour
	for a, g := range n.neighbours.list {
		if n.learns() && (!contains(scope, a) || n.served.host[a]) || !a.IsGlobalUnicast() {
			continue
		}
		v := vnet.Neighbour{Address: a}
		switch {
		case g.mac != (message.MAC{}):
			v.MAC = g.mac.String()
		case n.served != nil && !n.learns():
			continue // it was routed to, and isn't any more
		}
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b vnet.Neighbour) int { return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.MAC, b.MAC)) })
	return list
}
