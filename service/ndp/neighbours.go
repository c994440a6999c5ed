package ndp

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"gangway/service/ndp/message"
)

// Caps on what guests can make us remember, and for how long an address is that nobody speaks of.
const (
	maxAddresses  = 64   // of a MAC address
	maxNeighbours = 1024 // of a network
	unseen        = time.Hour
	sweepPause    = time.Second
)

// neighbours are the addresses of a network's guests. It is pure.
type neighbours struct {
	list   map[netip.Addr]neighbour
	counts map[message.MAC]int
	swept  time.Time
	// probed is set while they are asked whether they are still there: others are forgotten when nobody
	// speaks of them.
	probed bool
	// nextProbe is when to look who is to be asked; zero for never.
	nextProbe time.Time
}

type neighbour struct {
	// mac is 0, and port 0, when it is known from an earlier life alone.
	mac  message.MAC
	port int
	seen time.Time
	// asked is when it was last asked whether it is there, missed how often it was since it was seen.
	asked  time.Time
	missed int
	// rival is who wants to have the address, too.
	rival *rival
}

func newNeighbours() neighbours {
	return neighbours{list: map[netip.Addr]neighbour{}, counts: map[message.MAC]int{}}
}

// learn notes that the guest has the address, or, if it only asks whether it may (claimed is
// false), that it will have it unless somebody else does.
func (n *neighbours) learn(address netip.Addr, mac message.MAC, port int, claimed bool, now time.Time) {
	if !address.Is6() || address.IsUnspecified() || address.IsMulticast() || address.IsLoopback() {
		return
	}
	old, known := n.list[address]
	if known && old.mac != mac && !claimed && now.Sub(old.seen) < unseen {
		return
	}
	if !known || old.mac != mac {
		if n.full(mac) && now.Sub(n.swept) >= sweepPause { // not for each frame of a flood
			n.sweep(now)
			old, known = n.list[address]
		}
		if n.counts[mac] >= maxAddresses || !known && len(n.list) >= maxNeighbours {
			return
		}
	}
	if known {
		n.remove(address, old)
	}
	n.list[address] = neighbour{mac: mac, port: port, seen: now}
	n.counts[mac]++
}

func (n *neighbours) full(mac message.MAC) bool {
	return len(n.list) >= maxNeighbours || n.counts[mac] >= maxAddresses
}

func (n *neighbours) remove(address netip.Addr, old neighbour) {
	delete(n.list, address)
	if n.counts[old.mac]--; n.counts[old.mac] <= 0 {
		delete(n.counts, old.mac)
	}
}

// sweep forgets what was not seen for long.
func (n *neighbours) sweep(now time.Time) {
	n.swept = now
	if n.probed {
		return
	}
	for a, g := range n.list {
		if now.Sub(g.seen) >= unseen {
			n.remove(a, g)
		}
	}
}

// leave forgets who was behind a port; or, of those that the kernel is told of, has them looked for behind the others:
// a port that somebody took out may be back in a moment, and the guest hasn't noticed.
func (n *neighbours) leave(port int, now time.Time) {
	for a, g := range n.list {
		switch {
		case g.port != port:
		case n.probed:
			g.port = 0
			n.list[a] = g
			n.dispute(a, now)
		default:
			n.remove(a, g)
		}
	}
}

// place is where an address is.
type place struct {
	address netip.Addr
	mac     message.MAC
}

// on returns the addresses that may be used on a link with the prefixes, sorted.
func (n *neighbours) on(prefixes []netip.Prefix, now time.Time) []place {
	n.sweep(now)
	var list []place
	for a, g := range n.list {
		if g.mac == (message.MAC{}) {
			continue
		}
		if a.IsLinkLocalUnicast() || slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) }) {
			list = append(list, place{a, g.mac})
		}
	}
	slices.SortFunc(list, func(a, b place) int {
		return cmp.Or(slices.Compare(a.mac[:], b.mac[:]), a.address.Compare(b.address))
	})
	return list
}
