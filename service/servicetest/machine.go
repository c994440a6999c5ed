package servicetest

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// Numbers of the kernel's that the model uses.
const (
	mainTable  = 254
	localTable = 255
	protoKern  = 2 // RTPROT_KERNEL
	protoDHCP  = 16
	typeLocal  = 2 // RTN_LOCAL
	scopeHost  = 254
	scopeLink  = 253

	// firstOwn is the index of the first bridge of ours: they are counted apart, so that the
	// indices of all else don't depend on whether Gangway runs.
	firstOwn = 1000
)

// Machine is a machine. Its methods may be called from any goroutine.
type Machine struct {
	mu        sync.Mutex
	links     []vnet.Link
	addresses []vnet.Address
	routes    []vnet.Route
	rules     []vnet.Rule
	sysctls   map[string]string
	saved     map[string]string
	learned   map[int]string
	nextIndex int
	nextOwn   int

	chains, present bool
	sets            map[string][]vnet.SetEntry
	flows           []vnet.Flow

	servers map[string]vnet.Server
	leases  map[string][]vnet.Lease
	nextPID int

	docks map[string]Dock
	host  HostDNS
	ipv6
	routing

	fault    fault
	log      []string
	watchers map[int]func(string)
	nextID   int
	endWatch chan error
	observes int
	unseen   bool
}

// New returns a machine with the loopback, the kernel's three rules, and nothing else.
func New() *Machine {
	m := &Machine{
		sysctls:   map[string]string{},
		saved:     map[string]string{},
		learned:   map[int]string{},
		nextIndex: 1,
		nextOwn:   firstOwn,
		sets:      map[string][]vnet.SetEntry{},
		servers:   map[string]vnet.Server{},
		leases:    map[string][]vnet.Lease{},
		nextPID:   1,
		docks:     map[string]Dock{},
		watchers:  map[int]func(string){},
		endWatch:  make(chan error),
		ipv6:      newIPv6(),
		routing:   routing{serving: map[string]vnet.Served{}, neighbours: map[string][]vnet.Neighbour{}},
	}
	for _, name := range []string{"all", "default"} {
		m.sysctls["net/ipv4/conf/"+name+"/forwarding"] = "0"
		m.sysctls["net/ipv4/conf/"+name+"/rp_filter"] = "0"
		m.sysctls["net/ipv6/conf/"+name+"/disable_ipv6"] = "0"
		m.sysctls["net/ipv6/conf/"+name+"/accept_ra"] = "1"
		m.sysctls["net/ipv6/conf/"+name+"/forwarding"] = "0"
		m.sysctls["net/ipv6/conf/"+name+"/force_forwarding"] = "0"
		m.sysctls["net/ipv6/conf/"+name+"/proxy_ndp"] = "0"
		m.sysctls["net/ipv6/neigh/"+name+"/proxy_delay"] = "80"
	}
	for priority, table := range map[int]uint32{0: localTable, 32766: mainTable, 32767: 253} {
		m.rules = append(m.rules, vnet.Rule{Priority: priority, Table: table, SuppressPrefixLength: -1, Protocol: protoKern})
	}
	slices.SortFunc(m.rules, func(a, b vnet.Rule) int { return a.Priority - b.Priority })
	m.addLink(vnet.Link{Name: "lo", Type: 772, MTU: 65536, Up: true, Carrier: true, Loopback: true})
	m.addAddress(1, netip.MustParsePrefix("127.0.0.1/8"))
	return m
}

// change makes a change from outside, by somebody who isn't Gangway, and pokes.
func (m *Machine) change(reason string, f func()) {
	m.mu.Lock()
	f()
	m.settleBridges()
	pokes := slices.Collect(maps.Values(m.watchers))
	if m.unseen {
		pokes = nil
	}
	m.mu.Unlock()
	for _, poke := range pokes {
		poke(reason)
	}
}

// Unseen makes the changes of f without poking anybody.
func (m *Machine) Unseen(f func()) {
	m.setUnseen(true)
	f()
	m.setUnseen(false)
}

func (m *Machine) setUnseen(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unseen = on
}

// Poke wakes the watchers without any change.
func (m *Machine) Poke(reason string) { m.change(reason, func() {}) }

// linkSysctls are those that each link has.
var linkSysctls = []string{"net/ipv4/conf/%s/forwarding", "net/ipv4/conf/%s/rp_filter", "net/ipv6/conf/%s/disable_ipv6", "net/ipv6/conf/%s/accept_ra",
	"net/ipv6/conf/%s/forwarding", "net/ipv6/conf/%s/force_forwarding", "net/ipv6/conf/%s/proxy_ndp", "net/ipv6/neigh/%s/proxy_delay"}

// addLink gives the link an index, unless it has one, and the sysctls of a new link.
func (m *Machine) addLink(l vnet.Link) vnet.Link {
	if l.Index == 0 {
		l.Index = m.nextIndex
		m.nextIndex++
	}
	m.links = append(m.links, l)
	slices.SortFunc(m.links, func(a, b vnet.Link) int { return a.Index - b.Index })
	for _, key := range linkSysctls {
		m.sysctls[fmt.Sprintf(key, l.Name)] = m.sysctls[fmt.Sprintf(key, "default")]
	}
	return l
}

// link returns the link with the name for changing, nil if there is none.
func (m *Machine) link(name string) *vnet.Link {
	for i := range m.links {
		if m.links[i].Name == name {
			return &m.links[i]
		}
	}
	return nil
}

func (m *Machine) linkByIndex(index int) *vnet.Link {
	for i := range m.links {
		if m.links[i].Index == index {
			return &m.links[i]
		}
	}
	return nil
}

// nameOf returns the name of the link with the index, "" for none.
func (m *Machine) nameOf(index int) string {
	if l := m.linkByIndex(index); l != nil {
		return l.Name
	}
	return ""
}

// removeLink takes with the link its addresses, routes and sysctls, and frees its ports; rules
// and set members that name it stay.
func (m *Machine) removeLink(name string) {
	l := m.link(name)
	if l == nil {
		return
	}
	index := l.Index
	for _, a := range slices.Clone(m.addresses) {
		if a.Link == index {
			m.removeAddress(index, a.Prefix)
		}
	}
	m.routes = slices.DeleteFunc(m.routes, func(r vnet.Route) bool { return r.Link == index })
	m.proxies = slices.DeleteFunc(m.proxies, func(p vnet.Proxy) bool { return p.Link == index })
	m.links = slices.DeleteFunc(m.links, func(l vnet.Link) bool { return l.Index == index })
	for i := range m.links {
		if m.links[i].Master == index {
			m.links[i].Master, m.links[i].Isolated = 0, false
		}
	}
	delete(m.learned, index)
	for _, key := range linkSysctls {
		delete(m.sysctls, fmt.Sprintf(key, name))
	}
}

// setUp brings a link up, with the routes of its addresses, or down, without any.
func (m *Machine) setUp(l *vnet.Link, up bool) {
	if l.Up == up {
		return
	}
	l.Up = up
	index := l.Index
	if !up {
		m.proxies = slices.DeleteFunc(m.proxies, func(p vnet.Proxy) bool { return p.Link == index })
		m.routes = slices.DeleteFunc(m.routes, func(r vnet.Route) bool { return r.Link == index && r.Table != localTable })
		return
	}
	for _, a := range m.addresses {
		if a.Link == index {
			m.connect(index, a.Prefix)
		}
	}
}

// addAddress adds an address and, if the link is up, its routes.
func (m *Machine) addAddress(index int, p netip.Prefix) {
	if slices.ContainsFunc(m.addresses, func(a vnet.Address) bool { return a.Link == index && a.Prefix == p }) {
		return
	}
	m.addresses = append(m.addresses, vnet.Address{Link: index, Prefix: p})
	if l := m.linkByIndex(index); p.Addr().Is6() && l.Up {
		m.connect(index, p)
	}
	if p.Addr().Is4() {
		m.insertRoute(vnet.Route{Table: localTable, Dst: netip.PrefixFrom(p.Addr(), 32), Link: index, Source: p.Addr(),
			Protocol: protoKern, Scope: scopeHost, Type: typeLocal})
		if l := m.linkByIndex(index); l.Up {
			m.connect(index, p)
		}
	}
}

// connect adds the route to an address's own subnet.
func (m *Machine) connect(index int, p netip.Prefix) {
	switch {
	case p.Addr().Is4() && p.Bits() < 32 && !p.Addr().IsLoopback():
		m.insertRoute(vnet.Route{Table: mainTable, Dst: p.Masked(), Link: index, Source: p.Addr(),
			Protocol: protoKern, Scope: scopeLink, Type: vnet.RouteUnicast})
	case p.Addr().Is6() && p.Bits() < 128 && !p.Addr().IsLinkLocalUnicast():
		m.insertRoute(vnet.Route{Table: mainTable, Dst: p.Masked(), Link: index, Metric: 256,
			Protocol: protoKern, Type: vnet.RouteUnicast})
	}
}

// removeAddress removes an address and the routes that have it as their source. The connections
// that are masqueraded with it go as well (nf_nat_masquerade's address notifier).
func (m *Machine) removeAddress(index int, p netip.Prefix) {
	m.addresses = slices.DeleteFunc(m.addresses, func(a vnet.Address) bool { return a.Link == index && a.Prefix == p })
	m.routes = slices.DeleteFunc(m.routes, func(r vnet.Route) bool {
		return r.Link == index && (r.Source == p.Addr() || r.Dst == p.Masked() && r.Protocol == protoKern)
	})
	m.flows = slices.DeleteFunc(m.flows, func(f vnet.Flow) bool { return f.Translated == p.Addr() && f.Translated != f.Source })
}

func (m *Machine) insertRoute(r vnet.Route) {
	if !slices.Contains(m.routes, r) {
		m.routes = append(m.routes, r)
	}
}

// isOwn tells whether the link is a bridge of ours or an end of an IPv6-only link, whole or half made.
func isOwn(l vnet.Link) bool { return l.Index >= firstOwn }

// isTagged tells whether we would recognise it.
func isTagged(l vnet.Link) bool {
	_, ok := plan.OwnerOf(l)
	return ok
}
