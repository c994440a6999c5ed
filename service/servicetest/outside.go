package servicetest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// AddLink adds a link of somebody else's and returns its index.
func (m *Machine) AddLink(l vnet.Link) (index int) {
	m.change("new link "+l.Name, func() {
		if m.link(l.Name) != nil {
			panic("there is a link " + l.Name)
		}
		index = m.addLink(l).Index
	})
	return index
}

// AddVeth adds the host's end of a guest's veth pair, down, and returns its index.
func (m *Machine) AddVeth(name string) (index int) {
	return m.AddLink(vnet.Link{Name: name, Kind: "veth", Type: 1, MTU: 1500, MAC: "02:00:00:00:01:01", Carrier: true})
}

// RemoveLink removes a link.
func (m *Machine) RemoveLink(name string) {
	m.change("removed link "+name, func() { m.removeLink(name) })
}

// EditLink changes a link behind Gangway's back.
func (m *Machine) EditLink(name string, f func(*vnet.Link)) {
	m.change("edited link "+name, func() {
		if l := m.link(name); l != nil {
			f(l)
		}
	})
}

// SetDown sets a link down, with what that does to its routes.
func (m *Machine) SetDown(name string) {
	m.change("link down "+name, func() {
		if l := m.link(name); l != nil {
			m.setUp(l, false)
		}
	})
}

// AddAddress and RemoveAddress change addresses from outside.
func (m *Machine) AddAddress(name string, p netip.Prefix) {
	m.change("new address", func() {
		if l := m.link(name); l != nil {
			m.addAddress(l.Index, p)
		}
	})
}

// RemoveAddress removes an address from outside.
func (m *Machine) RemoveAddress(name string, p netip.Prefix) {
	m.change("removed address", func() {
		if l := m.link(name); l != nil {
			m.removeAddress(l.Index, p)
		}
	})
}

// AddRoute adds a route as it is, even one that looks like ours; ifname "" for none.
func (m *Machine) AddRoute(r vnet.Route, ifname string) {
	m.change("new route", func() {
		if l := m.link(ifname); l != nil {
			r.Link = l.Index
		}
		m.routes = append(m.routes, r)
	})
}

// RemoveRoutes removes the routes for which f says so.
func (m *Machine) RemoveRoutes(f func(vnet.Route) bool) {
	m.change("removed routes", func() { m.routes = slices.DeleteFunc(m.routes, f) })
}

// AddRule adds a rule as it is, even a second time.
func (m *Machine) AddRule(r vnet.Rule) {
	m.change("new rule", func() { m.rules = append(m.rules, r) })
}

// RemoveRules removes the rules for which f says so.
func (m *Machine) RemoveRules(f func(vnet.Rule) bool) {
	m.change("removed rules", func() { m.rules = slices.DeleteFunc(m.rules, f) })
}

// SetSysctl sets a sysctl from outside. That of "all" forwarding is ip_forward: like the
// kernel it sets every link's.
func (m *Machine) SetSysctl(key, value string) {
	m.change("sysctl", func() {
		if key != "net/ipv4/conf/all/forwarding" {
			// Whoever makes the host a router has seen to it that it keeps its own routes.
			m.switchSysctl(key, value)
			return
		}
		for k := range m.sysctls {
			if strings.HasPrefix(k, "net/ipv4/") && strings.HasSuffix(k, "/forwarding") {
				m.sysctls[k] = value
			}
		}
	})
}

// Sysctl returns a sysctl, "" if there is none.
func (m *Machine) Sysctl(key string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sysctls[key]
}

// FlushChains is somebody's "iptables -F".
func (m *Machine) FlushChains() { m.change("chains flushed", func() { m.chains = false }) }

// AddSetEntry puts a stale entry into a set of ours, if the set exists.
func (m *Machine) AddSetEntry(set string, e vnet.SetEntry) {
	m.change("set entry", func() {
		if entries, ok := m.sets[set]; ok && !slices.Contains(entries, e) {
			m.sets[set] = append(entries, e)
		}
	})
}

// SetEntries returns the entries of a set of ours.
func (m *Machine) SetEntries(set string) []vnet.SetEntry {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.sets[set])
}

// AddFlow adds a tracked connection; Flows lists them.
func (m *Machine) AddFlow(f vnet.Flow) { m.change("flow", func() { m.flows = append(m.flows, f) }) }

// Flows lists the tracked connections.
func (m *Machine) Flows() []vnet.Flow {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.flows)
}

// SetLeases sets a network's leases.
func (m *Machine) SetLeases(network string, leases ...vnet.Lease) {
	m.change("leases", func() { m.leases[network] = leases })
}

// AddServer adds a server that an earlier process left running; StopServer ends one.
func (m *Machine) AddServer(s vnet.Server) { m.change("server", func() { m.servers[s.Network] = s }) }

// StopServer ends a server unasked.
func (m *Machine) StopServer(network string) {
	m.change("server ended", func() { delete(m.servers, network) })
}

// SetLearned says which MAC address was learned behind a port.
func (m *Machine) SetLearned(index int, mac string) {
	m.change("learned", func() { m.learned[index] = mac })
}

// Observed is the machine as a pass sees it.
func (m *Machine) Observed(want plan.Want) vnet.Observed {
	m.mu.Lock()
	defer m.mu.Unlock()
	have := vnet.Observed{Firewall: m.filter()}
	have.Kernel = m.kernel(nil)
	have.Uplinks = m.uplinks(&have.Kernel)
	have.Kernel = m.kernel(plan.SysctlKeys(want, &have))
	have.Servers, have.Leases = m.running()
	have.NDP, have.Gate = m.heard(have.Uplinks.List), m.gate
	return have
}

// ApplyOps carries out operations of all rooms but the store's, which it ignores.
func (m *Machine) ApplyOps(ops []plan.Op) []plan.Outcome {
	return m.apply(ops, func(op plan.Op) (int, error) {
		switch op.Room() {
		case plan.LinkRoom:
			return 0, m.applyLink(op)
		case plan.FirewallRoom:
			return m.applyFilter(op)
		case plan.ServerRoom:
			return 0, m.applyServer(op)
		case plan.NDPRoom:
			return 0, m.applyNDP(op)
		case plan.GateRoom:
			return 0, m.applyGate(op)
		}
		return 0, nil
	})
}

// routeText shows a route by the name of its link.
func (m *Machine) routeText(r vnet.Route) string {
	text := fmt.Sprintf("route table %d %s via %v dev %s", r.Table, r.Dst, r.Gateway, m.nameOf(r.Link))
	return text + fmt.Sprintf(" src %v metric %d proto %d type %d", r.Source, r.Metric, r.Protocol, r.Type)
}
