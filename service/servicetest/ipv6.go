package servicetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// ipv6 is the machine's part that has to do with IPv6-only links.
type ipv6 struct {
	guards  map[string]string        // digest by network
	gate    bool                     // the watchdog runs
	routers map[string][]vnet.Router // heard by interface
	deaf    map[string]bool          // interfaces that were not listened to for long enough
	taught  map[string]vnet.Taught   // by network, on disk
	lost    map[string]bool          // uplinks that lost their carrier a moment ago
}

func newIPv6() ipv6 {
	return ipv6{guards: map[string]string{}, routers: map[string][]vnet.Router{}, deaf: map[string]bool{}, taught: map[string]vnet.Taught{},
		lost: map[string]bool{}}
}

// SetRouters says which routers are heard on an interface. With settled false those that aren't may
// only not have spoken yet.
func (m *Machine) SetRouters(ifname string, settled bool, routers ...vnet.Router) {
	m.change("routers of "+ifname, func() {
		m.routers[ifname] = routers
		m.deaf[ifname] = !settled
	})
}

// Taught returns what the guests of a network were taught.
func (m *Machine) Taught(network string) vnet.Taught {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.taught[network]
}

// FlushGuards takes all guards away, as "nft flush ruleset" does.
func (m *Machine) FlushGuards() { m.change("guards are gone", func() { clear(m.guards) }) }

// StopGate ends the watchdog.
func (m *Machine) StopGate() { m.change("the gate is gone", func() { m.gate = false }) }

// settleBridges gives each foreign bridge the carrier that it has by its ports.
func (m *Machine) settleBridges() {
	for i := range m.links {
		b := &m.links[i]
		if b.Kind != "bridge" || isOwn(*b) {
			continue
		}
		b.Carrier = slices.ContainsFunc(m.links, func(p vnet.Link) bool { return p.Master == b.Index && p.Up && p.Carrier })
	}
}

// NDP is the machine's view for the neighbour discovery room.
type NDP struct{ *Machine }

// Observe shows the routers of the uplinks, and what was taught.
func (n NDP) Observe(_ context.Context, _ *vnet.Kernel, uplinks []vnet.Uplink) (vnet.NDP, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.heard(uplinks), n.observable(plan.NDPRoom)
}

func (m *Machine) heard(uplinks []vnet.Uplink) vnet.NDP {
	out := vnet.NDP{Advertised: map[string]vnet.Advertised{}, Taught: maps.Clone(m.taught)}
	for _, u := range uplinks {
		a := vnet.Advertised{Interface: u.Interface, Settled: !m.deaf[u.Interface]}
		if l := m.link(u.Interface); l != nil && (l.Carrier || u.LostCarrier) {
			a.Routers = slices.Clone(m.routers[u.Interface])
		}
		out.Advertised[u.Interface] = a
	}
	m.shown(&out)
	return out
}

// Apply carries out the operations of the neighbour discovery room.
func (n NDP) Apply(_ context.Context, ops []plan.Op) []plan.Outcome {
	return n.apply(ops, func(op plan.Op) (int, error) { return 0, n.applyNDP(op) })
}

func (m *Machine) applyNDP(op plan.Op) error {
	switch o := op.(type) {
	case plan.Teach:
		t := m.taught[o.Network]
		t.Network, t.Routers = o.Network, slices.Clone(t.Routers)
		for _, r := range o.Routers {
			t.Retired = slices.DeleteFunc(slices.Clone(t.Retired), func(p netip.Prefix) bool { return slices.Contains(r.Prefixes, p) })
			i := slices.IndexFunc(t.Routers, func(k vnet.Router) bool { return k.Address == r.Address && k.MAC == r.MAC })
			if i < 0 {
				t.Routers = append(t.Routers, r)
				continue
			}
			k := t.Routers[i]
			k.Default, k.Prefixes = r.Default, slices.Clone(k.Prefixes)
			for _, p := range r.Prefixes {
				if !slices.Contains(k.Prefixes, p) {
					k.Prefixes = append(k.Prefixes, p)
				}
			}
			t.Routers[i] = k
		}
		m.taught[o.Network] = t
	case plan.Withdraw:
		if m.link(o.Bridge) == nil {
			return errNoLink
		}
		m.taught[o.Network] = withdrawn(m.taught[o.Network], o.Routers)
	case plan.Serve, plan.StopServing:
		return m.applyServing(op)
	case plan.Announce:
		if o.Inner == "" {
			return m.applyServing(op)
		}
		if l := m.link(o.Inner); l == nil || m.nameOf(l.Master) != o.Bridge {
			return fmt.Errorf("%s is no port of %s", o.Inner, o.Bridge)
		}
	case plan.Forget:
		delete(m.taught, o.Network)
	default:
		return fmt.Errorf("%T is not an operation of the neighbour discovery room", op)
	}
	return nil
}

func withdrawn(t vnet.Taught, routers []vnet.Router) vnet.Taught {
	var left []vnet.Router
	for _, k := range t.Routers {
		i := slices.IndexFunc(routers, func(r vnet.Router) bool { return k.Address == r.Address && k.MAC == r.MAC })
		if i < 0 {
			left = append(left, k)
			continue
		}
		var prefixes []netip.Prefix
		for _, p := range k.Prefixes {
			if !slices.Contains(routers[i].Prefixes, p) {
				prefixes = append(prefixes, p)
			} else if !slices.Contains(t.Retired, p) {
				t.Retired = append(slices.Clone(t.Retired), p)
			}
		}
		if k.Prefixes = prefixes; !routers[i].Default {
			left = append(left, k)
		}
	}
	t.Routers = left
	return t
}

// Gate is the machine's view for the gate's room.
type Gate struct{ *Machine }

// Observe tells whether the watchdog runs.
func (g Gate) Observe(context.Context) (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.gate, g.observable(plan.GateRoom)
}

// Apply carries out the operations of the gate's room.
func (g Gate) Apply(_ context.Context, ops []plan.Op) []plan.Outcome {
	return g.apply(ops, func(op plan.Op) (int, error) { return 0, g.applyGate(op) })
}

func (m *Machine) applyGate(op plan.Op) error {
	switch op.(type) {
	case plan.StartGate:
		m.gate = true
	case plan.StopGate:
		m.gate = false
	default:
		return fmt.Errorf("%T is not an operation of the gate's room", op)
	}
	return nil
}

func (m *Machine) applyPair(op plan.Op) error {
	defer m.settleBridges()
	switch o := op.(type) {
	case plan.CreatePair:
		return m.createPair(o, true)
	case plan.JoinBridge:
		b := m.link(o.Bridge)
		if b == nil || b.Kind != "bridge" {
			return fmt.Errorf("%s: %w", o.Bridge, errNoLink)
		}
		if l := m.link(o.Link); l != nil && l.Master != b.Index && l.MTU != b.MTU && !isOwn(*b) {
			return errors.New("it would change the bridge's MTU")
		}
		return m.onLink(o.Link, func(l *vnet.Link) { l.Master, l.Isolated = b.Index, o.Isolated })
	case plan.LeaveBridge:
		if l := m.link(o.Link); l != nil {
			l.Master, l.Isolated = 0, false
			m.setUp(l, false)
			l.Carrier = false
		}
	case plan.FlushPort:
		return m.onLink(o.Link, func(*vnet.Link) {})
	case plan.SetLinkDown:
		if l := m.link(o.Name); l != nil {
			m.setUp(l, false)
			l.Carrier = false
		}
	case plan.DeletePair:
		if l := m.link(o.Inner); l != nil && isOwn(*l) && l.Alias == o.Alias {
			m.removePair(*l)
		}
	}
	return nil
}

func (m *Machine) removePair(end vnet.Link) {
	stem := end.Name[:len(end.Name)-1]
	m.removeLink(stem + "n")
	m.removeLink(stem + "u")
}

func (m *Machine) createPair(o plan.CreatePair, whole bool) error {
	for _, end := range []struct{ name, mac, alias string }{{o.Inner, o.InnerMAC, o.InnerAlias}, {o.Outer, o.OuterMAC, o.OuterAlias}} {
		l := m.link(end.name)
		if l == nil {
			m.addLink(vnet.Link{Index: m.nextOwn, Name: end.name, Kind: "veth", Type: 1})
			m.nextOwn++
			l = m.link(end.name)
		} else if !isOwn(*l) {
			return fmt.Errorf("%s exists and is not ours", end.name)
		}
		l.MAC, l.MTU, l.Group = end.mac, o.MTU, plan.GroupPair
		m.sysctls["net/ipv6/conf/"+end.name+"/disable_ipv6"] = "1"
		if whole {
			l.Alias = end.alias
		}
	}
	return nil
}
