package ndp

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"gangway/service/ndp/message"
	"gangway/service/plan"
	"gangway/service/vnet"
)

// network is what is known of a network's guests.
type network struct {
	// bridge and inner are its interfaces' names, as the last operation had them; "" if none had.
	bridge, inner string
	lessons       map[key]*lesson

	// What follows isn't on disk.

	// untold is set when guests are to be told of withdrawals as soon as the bridge is seen.
	untold bool
	// repeats are when they are to be told again.
	repeats []time.Time
	// index is the bridge's, 0 if it wasn't seen; ports are its guests', by index.
	index int
	ports map[int]*port
	// linked is set when the IPv6-only link is there.
	linked     bool
	neighbours neighbours
	announced  *announcement
	// told is the uplink whose link was told where guests are, tellings are when it is told again.
	told     string
	tellings []time.Time
	// served is set while the bridge is the guests' router, claims are the addresses that guests are about
	// to have then. recovered is set when the kernel's routes to guests of an earlier life were looked at.
	served    *served
	claims    map[netip.Addr]*claim
	recovered bool
}

// port is a guest's.
type port struct {
	carrier bool
	// again is when it is to be told again of withdrawals; zero for never.
	again time.Time
}

func newNetwork() *network {
	return &network{lessons: map[key]*lesson{}, ports: map[int]*port{},
		neighbours: newNeighbours(), claims: map[netip.Addr]*claim{}}
}

// The routers of an operation.
type named struct {
	key
	router vnet.Router
}

func keysOf(op plan.Op, routers []vnet.Router) ([]named, error) {
	list := make([]named, len(routers))
	for i, r := range routers {
		mac, err := message.ParseMAC(r.MAC)
		if err != nil {
			return nil, fmt.Errorf("cannot %s: %w", op, err)
		}
		if !r.Address.IsLinkLocalUnicast() {
			return nil, fmt.Errorf("cannot %s: %s isn't link-local", op, r.Address)
		}
		list[i] = named{key{r.Address.WithZone(""), mac}, r}
	}
	return list, nil
}

// teach notes what guests may go by. changed tells whether that is other than before.
func (n *network) teach(uplink string, routers []named, bodies func(key) []body) (changed bool, err error) {
	for _, r := range routers {
		l := n.lessons[r.key]
		if l == nil {
			if len(n.lessons) >= maxLessons && !n.dropOldest() {
				err = fmt.Errorf("more than %d routers", maxLessons)
				continue
			}
			l = newLesson()
			n.lessons[r.key] = l
		}
		if l.uplink != uplink {
			l.uplink, changed = uplink, true
		}
		switch {
		case r.router.Default:
			changed = changed || !l.asDefault || !l.left.IsZero()
			l.asDefault, l.left = true, time.Time{}
		case n.served != nil && r.key == n.served.key && l.asDefault:
			l.asDefault, changed = false, true // they hear that from us alone
		}
		for _, p := range r.router.Prefixes {
			if p = p.Masked(); !l.prefixes[p] {
				if len(l.prefixes) >= maxTaught {
					err = fmt.Errorf("more than %d prefixes of %s", maxTaught, r.address)
					continue
				}
				l.prefixes[p], changed = true, true
			}
			// Whoever withdrew it, guests may use it again.
			for _, other := range n.lessons {
				if _, ok := other.retired[p]; ok {
					delete(other.retired, p)
					changed = true
				}
			}
		}
		for _, b := range slices.Backward(bodies(r.key)) {
			changed = l.remember(b) || changed
		}
	}
	return changed, err
}

// remember keeps what a router says, for the day on which it can't be asked.
func (l *lesson) remember(b body) (changed bool) {
	if len(l.bodies) > 0 && !b.at.After(l.bodies[0].at) {
		return false
	}
	l.bodies, changed = remember(l.bodies, b)
	return changed
}

// dropOldest makes room by forgetting the router that left first, of those that did.
func (n *network) dropOldest() bool {
	var oldest key
	var when time.Time
	for k, l := range n.lessons {
		if !l.taught() && (when.IsZero() || l.next().Before(when)) {
			oldest, when = k, l.next()
		}
	}
	delete(n.lessons, oldest)
	return !when.IsZero()
}

// withdraw notes what guests are to forget. With Default, nothing of the router is taught any more. A
// prefix that another router still stands for isn't forgotten, only no longer this one's.
func (n *network) withdraw(routers []named, now time.Time, bodies func(key) []body) {
	for _, r := range routers {
		l := n.lessons[r.key]
		if l == nil {
			if len(n.lessons) >= maxLessons {
				n.dropOldest()
			}
			l = newLesson()
			n.lessons[r.key] = l
		}
		if len(l.bodies) == 0 {
			l.bodies = bodies(r.key)
		}
		l.told = now
		for _, p := range r.router.Prefixes {
			delete(l.prefixes, p.Masked())
		}
		if r.router.Default {
			l.asDefault = false
			clear(l.prefixes)
			if l.left.IsZero() {
				l.left = now
			}
		}
	}
	taught := n.taught()
	for _, r := range routers {
		l := n.lessons[r.key]
		for _, p := range r.router.Prefixes {
			if p = p.Masked(); !taught[p] {
				l.retire(p, now)
			}
		}
	}
}

// taught are the prefixes that guests may go by, whoever stands for them.
func (n *network) taught() map[netip.Prefix]bool {
	all := map[netip.Prefix]bool{}
	for _, l := range n.lessons {
		maps.Copy(all, l.prefixes)
	}
	return all
}

// stands tells what guests may go by that another router than k says, too: its prefixes, and
// the options whose end would be theirs.
func (n *network) stands(k key) func(kind byte, said string) bool {
	others, taught := map[string]bool{}, n.taught()
	for other, l := range n.lessons {
		if other == k || !l.taught() {
			continue
		}
		for _, said := range allSaid(l.bodies) {
			others[said] = true
		}
	}
	return func(kind byte, said string) bool {
		switch kind {
		case optionPrefix:
			return taught[prefixOf(said)]
		case optionRoute, optionRDNSS, optionDNSSL, optionPREF64, optionEncryptedDNS:
			return others[said]
		}
		return false
	}
}

// prefixOf is the prefix in an option for one; the zero Prefix if there is none.
func prefixOf(option string) netip.Prefix {
	if len(option) < 32 {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(netip.AddrFrom16([16]byte([]byte(option[16:32]))), int(option[2])).Masked()
}

// withdrawn tells whether there is anything that guests are to forget.
func (n *network) withdrawn() bool {
	for _, l := range n.lessons {
		if l.withdrawn() {
			return true
		}
	}
	return false
}

// expire lets go of what was withdrawn long enough ago.
func (n *network) expire(now time.Time) (changed bool) {
	for k, l := range n.lessons {
		changed = l.expire(now) || changed
		if !l.taught() && !l.withdrawn() {
			delete(n.lessons, k)
			changed = true
		}
	}
	return changed
}

// shown is what others see of it; false if there is nothing.
func (n *network) shown(name string) (vnet.Taught, bool) {
	t := vnet.Taught{Network: name}
	retired := map[netip.Prefix]bool{}
	for _, k := range slices.SortedFunc(maps.Keys(n.lessons), key.compare) {
		l := n.lessons[k]
		if l.taught() {
			t.Routers = append(t.Routers, l.shown(k))
		}
		for p := range l.retired {
			retired[p] = true
		}
	}
	t.Retired = slices.SortedFunc(maps.Keys(retired), comparePrefixes)
	return t, len(n.lessons) > 0
}
