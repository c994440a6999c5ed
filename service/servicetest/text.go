package servicetest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// Text is the whole state but for flows and process ids, sorted lines, links by their names:
// equal texts are equal machines.
func (m *Machine) Text() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	lines := m.foreign(func(string) bool { return true })
	for _, l := range m.links {
		if isOwn(l) {
			lines = append(lines, m.linkText(l, false))
			lines = append(lines, m.addressTexts(l)...)
			for _, key := range []string{"net/ipv4/conf/" + l.Name + "/forwarding", "net/ipv6/conf/" + l.Name + "/disable_ipv6",
				"net/ipv6/conf/" + l.Name + "/forwarding", "net/ipv6/conf/" + l.Name + "/force_forwarding"} {
				lines = append(lines, "sysctl "+key+" = "+m.sysctls[key])
			}
		} else if l.Master != 0 {
			lines = append(lines, fmt.Sprintf("port %s of %s isolated %v up %v", l.Name, m.nameOf(l.Master), l.Isolated, l.Up))
		}
	}
	for _, r := range m.routes {
		if m.ownRoute(r) {
			lines = append(lines, m.routeText(r))
		}
	}
	for _, r := range m.rules {
		if r.Protocol == plan.Protocol {
			lines = append(lines, fmt.Sprintf("rule %+v", r))
		}
	}
	for key, value := range m.saved {
		lines = append(lines, "saved "+key+" = "+value)
	}
	lines = append(lines, m.proxyTexts()...)
	lines = append(lines, "forward "+m.forward)
	lines = append(lines, fmt.Sprintf("chains %v present %v", m.chains, m.present))
	for set, entries := range m.sets {
		lines = append(lines, "set "+set)
		for _, e := range entries {
			lines = append(lines, fmt.Sprintf("entry %s %s,%s", set, e.Prefix, e.Interface))
		}
	}
	for network, digest := range m.guards {
		lines = append(lines, "guard of "+network+" "+digest)
	}
	lines = append(lines, fmt.Sprintf("gate %v", m.gate))
	for network, t := range m.taught {
		for _, r := range t.Routers {
			lines = append(lines, fmt.Sprintf("taught %s %+v", network, r))
		}
	}
	for _, s := range m.servers {
		s.PID = 0
		lines = append(lines, fmt.Sprintf("server %+v", s))
	}
	return sorted(lines)
}

// Foreign is the state that isn't ours, in lines like Text's: what Gangway has to leave as it
// is. With borrowed, those sysctls are left out that are borrowed now. What an
// interface has from being a port is left out, too.
func (m *Machine) Foreign(borrowed bool) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return sorted(m.foreign(func(key string) bool {
		_, lent := m.saved[key]
		return !borrowed || !lent
	}))
}

// Left lists whatever of ours is on the machine: after a shutdown, nothing.
func (m *Machine) Left() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var left []string
	for _, l := range m.links {
		if isOwn(l) {
			left = append(left, "link "+l.Name)
		} else if b := m.linkByIndex(l.Master); b != nil && isOwn(*b) {
			left = append(left, "port "+l.Name)
		}
	}
	for _, r := range m.routes {
		if m.ownRoute(r) {
			left = append(left, m.routeText(r))
		}
	}
	for _, r := range m.rules {
		if r.Protocol == plan.Protocol {
			left = append(left, fmt.Sprintf("rule %+v", r))
		}
	}
	for key := range m.saved {
		left = append(left, "borrowed "+key)
	}
	for network := range m.guards {
		left = append(left, "guard of "+network)
	}
	if m.gate {
		left = append(left, "gate")
	}
	left = append(left, m.proxyTexts()...)
	if m.present || m.chains || m.forward != "" || len(m.sets) > 0 {
		left = append(left, "firewall")
	}
	for name := range m.servers {
		left = append(left, "server of "+name)
	}
	slices.Sort(left)
	return left
}

func (m *Machine) foreign(sysctl func(key string) bool) []string {
	var lines []string
	for _, l := range m.links {
		if isOwn(l) {
			continue
		}
		lines = append(lines, m.linkText(l, true))
		lines = append(lines, m.addressTexts(l)...)
	}
	for _, r := range m.routes {
		if !m.ownRoute(r) {
			lines = append(lines, m.routeText(r))
		}
	}
	for _, r := range m.rules {
		if r.Protocol != plan.Protocol {
			lines = append(lines, fmt.Sprintf("rule %+v", r))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(m.sysctls)) {
		if name := strings.Split(key, "/")[3]; sysctl(key) && !m.ownName(name) {
			lines = append(lines, "sysctl "+key+" = "+m.sysctls[key])
		}
	}
	return lines
}

func (m *Machine) ownName(name string) bool {
	l := m.link(name)
	return l != nil && isOwn(*l)
}

func (m *Machine) ownRoute(r vnet.Route) bool {
	return r.Protocol == plan.Protocol || r.Link >= firstOwn
}

func (m *Machine) linkText(l vnet.Link, foreign bool) string {
	up := fmt.Sprint(l.Up)
	if foreign && l.Kind == "veth" {
		up = "any" // a port is brought up, and stays so
	}
	if !foreign {
		l.Carrier = false // depends on the ports
	}
	return fmt.Sprintf("link %s kind %q type %d mac %s mtu %d up %s carrier %v alias %q group %#x snooping %v",
		l.Name, l.Kind, l.Type, l.MAC, l.MTU, up, l.Carrier, l.Alias, l.Group, l.MulticastSnooping)
}

func (m *Machine) addressTexts(l vnet.Link) []string {
	var lines []string
	for _, a := range m.addresses {
		if a.Link == l.Index {
			lines = append(lines, fmt.Sprintf("address %s of %s", a.Prefix, l.Name))
		}
	}
	return lines
}

func sorted(lines []string) string {
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}
