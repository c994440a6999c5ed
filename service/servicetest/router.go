package servicetest

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// routing is the machine's part that has to do with guests whose router is their bridge.
type routing struct {
	proxies    []vnet.Proxy
	forward    string                      // the forward filter's digest
	serving    map[string]vnet.Served      // by network, in the process's memory
	neighbours map[string][]vnet.Neighbour // by network
}

const protocolRA = 9 // RTPROT_RA

// SetNeighbours says which addresses guests of a network are known to have.
func (m *Machine) SetNeighbours(network string, addresses ...netip.Addr) {
	m.change("neighbours of "+network, func() {
		var list []vnet.Neighbour
		for i, a := range addresses {
			list = append(list, vnet.Neighbour{Address: a, MAC: fmt.Sprintf("52:54:00:00:00:%02x", i)})
		}
		m.neighbours[network] = list
	})
}

// FlushProxies takes all proxied neighbours away, and FlushForward the forward filter.
func (m *Machine) FlushProxies() { m.change("proxies are gone", func() { m.proxies = nil }) }

// FlushForward is somebody's "nft delete table inet gangway".
func (m *Machine) FlushForward() { m.change("forward filter is gone", func() { m.forward = "" }) }

func (m *Machine) applyProxy(op plan.Op) error {
	switch o := op.(type) {
	case plan.AddProxy:
		l := m.link(o.Link)
		if l == nil {
			return errNoLink
		}
		p := vnet.Proxy{Address: o.Address, Link: l.Index, Protocol: plan.Protocol}
		if !slices.ContainsFunc(m.proxies, func(h vnet.Proxy) bool { return h.Address == p.Address && h.Link == p.Link }) {
			m.proxies = append(m.proxies, p)
		}
	case plan.DeleteProxy:
		if l := m.link(o.Link); l != nil {
			m.proxies = slices.DeleteFunc(m.proxies, func(h vnet.Proxy) bool {
				return h == vnet.Proxy{Address: o.Address, Link: l.Index, Protocol: plan.Protocol}
			})
		}
	}
	return nil
}

func (m *Machine) applyServing(op plan.Op) error {
	switch o := op.(type) {
	case plan.Serve:
		if m.link(o.Spec.Bridge) == nil {
			return errNoLink
		}
		m.serving[o.Spec.Network] = vnet.Served{Digest: o.Spec.Digest(), Uplink: o.Spec.Uplink}
	case plan.StopServing:
		delete(m.serving, o.Network)
	case plan.Announce:
		if m.serving[o.Network].Uplink != o.Uplink {
			return errors.New("it isn't served by that uplink")
		}
	}
	return nil
}

// setSysctl sets a sysctl as we do, with what the kernel does besides: as soon as any interface forwards IPv6,
// default routes that it took from router advertisements go, but for those of interfaces that overrule that.
func (m *Machine) setSysctl(key, value string) {
	m.switchSysctl(key, value)
	if strings.HasPrefix(key, "net/ipv6/conf/") && strings.HasSuffix(key, "/forwarding") && value == "1" {
		m.routes = slices.DeleteFunc(m.routes, func(r vnet.Route) bool {
			return r.Protocol == protocolRA && m.sysctls["net/ipv6/conf/"+m.nameOf(r.Link)+"/accept_ra"] != "2"
		})
	}
}

// switchSysctl sets a sysctl; a switch for all interfaces is one for each.
func (m *Machine) switchSysctl(key, value string) {
	m.sysctls[key] = value
	if key == "net/ipv6/conf/all/forwarding" {
		for k := range m.sysctls {
			if strings.HasPrefix(k, "net/ipv6/conf/") && strings.HasSuffix(k, "/forwarding") {
				m.sysctls[k] = value
			}
		}
	}
}

// shown adds to what the neighbour discovery room shows.
func (r *routing) shown(out *vnet.NDP) {
	out.Serving = maps.Clone(r.serving)
	out.Neighbours = map[string][]vnet.Neighbour{}
	for network := range r.neighbours { // a new process finds them by their routes
		out.Neighbours[network] = slices.Clone(r.neighbours[network])
	}
}

func (m *Machine) proxyTexts() (lines []string) {
	for _, p := range m.proxies {
		lines = append(lines, fmt.Sprintf("proxy %s on %s protocol %d", p.Address, m.nameOf(p.Link), p.Protocol))
	}
	return lines
}
