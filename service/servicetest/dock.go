package servicetest

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"gangway/service/vnet"
)

// Dock is an uplink as the host's network manager has it.
type Dock struct {
	Name string
	Kind vnet.UplinkKind
	// Address is the host's, Gateway the router's: the zero Addr for none, as in tunnels.
	Address netip.Prefix
	Gateway netip.Addr
	// IPv6 are the host's own addresses, Gateway6 the IPv6 router's; Default6 says that it has an IPv6 default
	// route, which is the kernel's own, taken from an advertisement, with Advertised. Delegated are prefixes by DHCPv6.
	IPv6                 []netip.Prefix
	Gateway6             netip.Addr
	Default6, Advertised bool
	Delegated            []netip.Prefix
	// Default says that it has a default route, with the metric.
	Default bool
	Metric  uint32
	// Routes are more specific ones that lead to it.
	Routes []netip.Prefix
	DNS    []netip.Addr
	MTU    int // 0: 1500
	// UUID is its connection's. SharedFrom marks a bridge that was made by sharing that connection.
	UUID, SharedFrom string
}

// HostDNS is what the host knows of DNS beside the uplinks' servers, and of prefixes to avoid.
type HostDNS struct {
	Stub      netip.Addr
	Upstreams []vnet.Upstream
	Reserved  []vnet.Reservation
	Recheck   time.Duration
}

// Plug connects an uplink: its link is made if it isn't there, and is up with a carrier. A
// second Plug of the name changes address and routes.
func (m *Machine) Plug(d Dock) {
	m.change("plug "+d.Name, func() {
		l := m.link(d.Name)
		if l == nil {
			n := vnet.Link{Name: d.Name, Type: 1, MTU: 1500, MAC: "02:00:00:00:00:01"}
			if d.Kind == vnet.VPN {
				n.Type, n.Kind, n.MAC, n.PointToPoint = 65534, "tun", "", true
			}
			if d.Kind == vnet.BridgeKind {
				n.Kind = "bridge"
			}
			l = m.link(m.addLink(n).Name)
			if d.Kind == vnet.BridgeKind {
				m.addLink(vnet.Link{Name: portOf(d.Name), Type: 1, MTU: 1500, MAC: n.MAC, Up: true, Carrier: true, Master: l.Index})
				l = m.link(d.Name)
			}
		}
		if p := m.link(portOf(d.Name)); p != nil {
			p.Carrier = true
		}
		if l.MTU = d.MTU; d.MTU == 0 {
			l.MTU = 1500
		}
		m.unconfigure(l.Index)
		l.Carrier = true
		m.setUp(l, true)
		m.docks[d.Name] = d
		m.configure(l.Index, d)
	})
}

// portOf is the name of the physical port of an uplink that is a bridge.
func portOf(name string) string { return name + "-port" }

func (m *Machine) configure(index int, d Dock) {
	m.addAddress(index, d.Address)
	for _, p := range d.IPv6 {
		m.addAddress(index, p)
	}
	if d.Default6 {
		r := vnet.Route{Table: mainTable, Dst: netip.PrefixFrom(netip.IPv6Unspecified(), 0), Gateway: d.Gateway6, Link: index, Metric: d.Metric,
			Protocol: protoDHCP, Type: vnet.RouteUnicast}
		if d.Advertised {
			r.Protocol = protocolRA
		}
		m.insertRoute(r)
	}
	route := vnet.Route{Table: mainTable, Gateway: d.Gateway, Link: index, Metric: d.Metric, Protocol: protoDHCP, Type: vnet.RouteUnicast}
	if !d.Gateway.IsValid() {
		route.Scope = scopeLink
	}
	for _, p := range d.Routes {
		route.Dst = p
		m.insertRoute(route)
	}
	if d.Default {
		route.Dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		m.insertRoute(route)
	}
}

// unconfigure takes addresses and the host's own routes away. Ours by this link stay: the
// kernel doesn't mind that a next hop isn't on a subnet any more.
func (m *Machine) unconfigure(index int) {
	m.routes = slices.DeleteFunc(m.routes, func(r vnet.Route) bool {
		return r.Link == index && (r.Protocol == protoDHCP || r.Protocol == protocolRA)
	})
	for _, a := range slices.Clone(m.addresses) {
		if a.Link == index {
			m.removeAddress(index, a.Prefix)
		}
	}
}

// Disconnect takes the uplink's configuration away; the link stays up.
func (m *Machine) Disconnect(name string) {
	m.change("disconnect "+name, func() {
		if l := m.link(name); l != nil {
			m.unconfigure(l.Index)
		}
		delete(m.docks, name)
	})
}

// Unplug removes the uplink's link, as with a USB adapter.
func (m *Machine) Unplug(name string) {
	m.change("unplug "+name, func() {
		m.removeLink(name)
		m.removeLink(portOf(name))
		delete(m.docks, name)
	})
}

// SetCarrier changes the carrier; the host's routes stay, as they do for six seconds.
func (m *Machine) SetCarrier(name string, on bool) {
	m.change("carrier of "+name, func() {
		if l := m.link(name); l != nil {
			if p := m.link(portOf(name)); p != nil {
				l = p
			}
			l.Carrier = on
		}
	})
}

// SetHost says what the host knows of DNS and of prefixes to avoid.
func (m *Machine) SetHost(h HostDNS) { m.change("host DNS", func() { m.host = h }) }

// Docks returns the names of the uplinks, sorted.
func (m *Machine) Docks() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name := range m.docks {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// LoseCarrier says of an uplink without a carrier whether it was lost a moment ago.
func (m *Machine) LoseCarrier(name string, recently bool) {
	m.SetCarrier(name, false)
	m.change("time passes", func() { m.lost[name] = recently })
}

// Uplinks is the machine's view for the uplink room.
type Uplinks struct{ *Machine }

// Read shows the uplinks.
func (u Uplinks) Read(_ context.Context, k *vnet.Kernel) (vnet.Uplinks, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.fault.dead {
		return vnet.Uplinks{}, ErrKilled
	}
	return u.uplinks(k), nil
}

// Again reads against a newer dump; the docks are as they are.
func (u Uplinks) Again(k *vnet.Kernel) vnet.Uplinks {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.uplinks(k)
}

func (m *Machine) uplinks(k *vnet.Kernel) vnet.Uplinks {
	out := vnet.Uplinks{Source: "NetworkManager", Stub: m.host.Stub, Upstreams: slices.Clone(m.host.Upstreams),
		Reserved: slices.Clone(m.host.Reserved), Recheck: m.host.Recheck}
	for _, l := range k.Links {
		d, ok := m.docks[l.Name]
		if !ok {
			continue
		}
		u := vnet.Uplink{Interface: l.Name, Index: l.Index, Kind: d.Kind, Connection: l.Name, ConnectionUUID: d.UUID, SharedFrom: d.SharedFrom, MTU: l.MTU,
			Default6: d.Default6, Gateway6: d.Gateway6, Delegated: slices.Clone(d.Delegated),
			Default4: d.Default, Gateway4: d.Gateway, Metric4: d.Metric, Nameservers: slices.Clone(d.DNS),
			LostCarrier: !l.Carrier && m.lost[l.Name],
			Metered:     "unknown", Connectivity: "unknown"}
		for _, a := range k.Addresses {
			if a.Link == l.Index {
				u.Addresses = append(u.Addresses, a.Prefix)
			}
		}
		switch {
		case !l.Up:
			u.Reason = "link is down"
		case !l.Carrier:
			u.Reason = "no carrier"
		case !d.Address.IsValid():
			u.Reason = "no IPv4 address"
		case !d.Default:
			u.Reason = "no IPv4 default route"
		}
		u.Usable = u.Reason == ""
		out.List = append(out.List, u)
	}
	slices.SortFunc(out.List, func(a, b vnet.Uplink) int {
		if a.Interface < b.Interface {
			return -1
		}
		return 1
	})
	best := func(vpn bool) string {
		var best *vnet.Uplink
		for i := range out.List {
			u := &out.List[i]
			if u.Default4 && (u.Kind == vnet.VPN) == vpn && (best == nil || u.Metric4 < best.Metric4) {
				best = u
			}
		}
		if best == nil {
			return ""
		}
		return best.Interface
	}
	out.Physical = best(false)
	for _, u := range out.List {
		p, _ := out.Find(out.Primary6)
		if l, _ := k.LinkByIndex(u.Index); u.Default6 && l.Up && (out.Primary6 == "" || m.docks[u.Interface].Metric < m.docks[p.Interface].Metric) {
			out.Primary6 = u.Interface
		}
	}
	if out.Primary = best(true); out.Primary == "" {
		out.Primary = out.Physical
	}
	return out
}

// Share makes the dock a bridge by its connection, as NetworkManager does.
func (u Uplinks) Share(_ context.Context, up vnet.Uplink) error {
	d, ok := u.Dock(up.Interface)
	if !ok || d.Kind != vnet.Ethernet {
		return vnet.Errorf(vnet.NotSupported, "%s cannot be made a bridge", up.Interface)
	}
	u.Unplug(d.Name)
	d.Kind, d.SharedFrom = vnet.BridgeKind, d.UUID
	u.Plug(d)
	return nil
}

// Unshare undoes Share.
func (u Uplinks) Unshare(_ context.Context, up vnet.Uplink) error {
	d, _ := u.Dock(up.Interface)
	u.Unplug(d.Name)
	d.Kind, d.SharedFrom = vnet.Ethernet, ""
	u.Plug(d)
	return nil
}

// Dock returns the uplink of the name.
func (m *Machine) Dock(name string) (Dock, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.docks[name]
	return d, ok
}
