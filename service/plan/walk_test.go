package plan_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"gangway/service/plan"
	"gangway/service/servicetest"
	"gangway/service/vnet"
)

// act is one step of a random walk: what, and numbers that it takes modulo what there is.
type act struct{ what, a, b, c int }

func (a act) String() string { return fmt.Sprintf("{%s %d %d %d}", acts[a.what].name, a.a, a.b, a.c) }

// walk is a world beside a twin: the same machine on which Gangway doesn't run.
type walk struct {
	*world
	twin  *servicetest.Machine
	veths int
}

func newWalk() *walk { return &walk{world: newWorld(), twin: servicetest.New()} }

// outside makes the same change from outside to both machines.
func (w *walk) outside(f func(*servicetest.Machine)) {
	f(w.m)
	f(w.twin)
}

var names = []string{"default", "alpha", "beta"}

var docks = []servicetest.Dock{eth0, wlan0, tun0,
	{Name: "wwan0", Kind: vnet.WWAN, Default: true, MTU: 1400, DNS: []netip.Addr{ip("8.8.8.8")}}, br0, br1}

// inIPv6 are the ways in which a dock may have IPv6.
var inIPv6 = []func(servicetest.Dock) servicetest.Dock{
	func(d servicetest.Dock) servicetest.Dock { return d },
	func(d servicetest.Dock) servicetest.Dock { return with6(d, "fe80::a", "2001:db8:a::7/64") },
	func(d servicetest.Dock) servicetest.Dock { return advertised(with6(d, "fe80::b", "2001:db8:b::5/64")) },
	func(d servicetest.Dock) servicetest.Dock { return with6(d, "fe80::d", "2001:db8:d::5/128") },
	func(d servicetest.Dock) servicetest.Dock {
		d.Delegated = prefixes("2001:db8:d00::/63")
		return with6(d, "fe80::d")
	},
}

// lan returns an address and its router: of one of a few LANs, or in the way of a network.
func (w *walk) lan(n int) (netip.Prefix, netip.Addr) {
	p := pfx(fmt.Sprintf("10.%d.0.0/24", 1+n%4))
	if n%3 == 0 && len(w.want.Networks) > 0 {
		have := plan.Plan(w.want, w.m.Observed(w.want)).Networks[n/3%len(w.want.Networks)]
		if have.Subnet.IsValid() {
			p = have.Subnet
		}
	}
	return netip.PrefixFrom(p.Addr().Next().Next().Next(), p.Bits()), p.Addr().Next()
}

// updates are settings to merge into a network.
var updates = []map[string]any{
	{"ipv4-method": "nat"}, {"ipv4-method": "routed"}, {"ipv4-method": "isolated"}, {"ipv4-method": "off"},
	{"uplink": "auto"}, {"uplink": "wlan0"}, {"uplink": "none"},
	{"vpn": "follow"}, {"vpn": "bypass"}, {"vpn": "block"},
	{"on-clash": "report"}, {"on-clash": "renumber"},
	{"ipv4-subnet": "auto"}, {"ipv4-subnet": "10.1.0.0/24"}, {"ipv4-subnet": "192.168.140.0/26"},
	{"bridge": "virt0"}, {"bridge": "gway0"}, {"bridge": "virt1"},
	{"mtu": uint32(1400)}, {"mtu": uint32(0)}, {"isolate-ports": true}, {"isolate-ports": false},
	{"host-access": "all"}, {"ipv6-method": "off"}, {"ipv6-method": "auto"}, {"ipv6-method": "link-local"}, {"ipv6-method": "bridge"}, {"ipv6-method": "proxy"}, {"ipv6-method": "routed"}, {"ipv6-method": "nat66"},
	{"ipv6-prefix": "2001:db8:5000::/63"}, {"ipv6-prefix": "auto"}, {"nat66-fallback": true}, {"nat66-fallback": false}, {"inbound": "allow"}, {"dhcp": false}, {"domain": "x.internal"},
	{"dhcp-hosts": []map[string]any{{"mac": "52:54:00:00:00:01", "address": "192.168.231.9"}}}, {"dhcp-hosts": []map[string]any{}},
}

var acts = []struct {
	name string
	do   func(w *walk, a act)
}{
	{"plug", func(w *walk, a act) {
		d := docks[a.a%len(docks)]
		if d.Kind != vnet.VPN && d.Kind != vnet.WWAN {
			d.Address, d.Gateway = w.lan(a.b)
			d.Metric = []uint32{100, 600, 50}[a.c%3]
		} else {
			d.Address = netip.PrefixFrom(ip(fmt.Sprintf("10.%d.0.2", 60+a.b%3)), 32)
			if d.Default = a.c%3 != 0; !d.Default {
				d.Routes = []netip.Prefix{pfx("10.200.0.0/16")}
			}
		}
		d = inIPv6[(a.a+a.b+a.c)%len(inIPv6)](d)
		w.outside(func(m *servicetest.Machine) { m.Plug(d) })
	}},
	{"disconnect", func(w *walk, a act) {
		w.outside(func(m *servicetest.Machine) { m.Disconnect(docks[a.a%len(docks)].Name) })
	}},
	{"unplug", func(w *walk, a act) {
		w.outside(func(m *servicetest.Machine) { m.Unplug(docks[a.a%len(docks)].Name) })
	}},
	{"carrier", func(w *walk, a act) {
		w.outside(func(m *servicetest.Machine) { m.SetCarrier(docks[a.a%len(docks)].Name, a.b%3 == 0) })
	}},
	{"down", func(w *walk, a act) {
		w.outside(func(m *servicetest.Machine) { m.SetDown(docks[a.a%len(docks)].Name) })
	}},
	{"lost", func(w *walk, a act) {
		w.outside(func(m *servicetest.Machine) { m.LoseCarrier(docks[a.a%len(docks)].Name, a.b%2 == 0) })
	}},
	{"routers", func(w *walk, a act) {
		lists := [][]vnet.Router{nil, {routerA}, {routerA2}, {routerB}, {routerA, routerB}}
		w.outside(func(m *servicetest.Machine) {
			m.SetRouters([]string{"br0", "br1", "eth0", "wlan0"}[a.a%4], a.c%4 != 0, lists[a.b%len(lists)]...)
		})
	}},
	{"neighbours", func(w *walk, a act) {
		var list []netip.Addr
		for i := range a.b % 5 {
			list = append(list, ip(fmt.Sprintf("2001:db8:%x::%x", 10+(a.c+i)%3, 0x100+(a.b+i)%7)))
		}
		w.m.SetNeighbours(names[a.a%len(names)], list...)
	}},
	{"IPv6 forwarding", func(w *walk, a act) {
		w.outside(func(m *servicetest.Machine) { m.SetSysctl("net/ipv6/conf/all/forwarding", fmt.Sprint(a.a%2)) })
	}},
	{"IPv6 off", func(w *walk, a act) {
		w.outside(func(m *servicetest.Machine) {
			m.SetSysctl("net/ipv6/conf/"+docks[a.a%len(docks)].Name+"/disable_ipv6", fmt.Sprint(a.b%2))
		})
	}},
	{"never shared", func(w *walk, a act) {
		w.want.NeverShared = [][]string{nil, {"uuid-br0"}, {"uuid-br0", "uuid-br1"}}[a.a%3]
	}},
	{"ip_forward", func(w *walk, a act) {
		w.outside(func(m *servicetest.Machine) { m.SetSysctl("net/ipv4/conf/all/forwarding", fmt.Sprint(a.a%2)) })
	}},
	{"rp_filter", func(w *walk, a act) {
		key := []string{"net/ipv4/conf/default/rp_filter", "net/ipv4/conf/all/rp_filter"}[a.a%2]
		w.outside(func(m *servicetest.Machine) { m.SetSysctl(key, fmt.Sprint(a.b%3)) })
	}},
	{"network", func(w *walk, a act) {
		name := names[a.a%len(names)]
		w.network(name, updates[a.b%len(updates)])
		w.find(name).Active = a.c%4 != 0
	}},
	{"update", func(w *walk, a act) {
		if len(w.want.Networks) > 0 {
			w.network(w.want.Networks[a.a%len(w.want.Networks)].Name, updates[a.b%len(updates)])
		}
	}},
	{"delete", func(w *walk, a act) { w.forget(names[a.a%len(names)]) }},
	{"veth", func(w *walk, a act) {
		w.veths++
		var index int
		name := fmt.Sprintf("veth%d", w.veths)
		w.outside(func(m *servicetest.Machine) { index = m.AddVeth(name) })
		if n := w.find(names[a.a%len(names)]); n != nil {
			n.Ports = append(slices.Clone(n.Ports), vnet.PortRef{Interface: name, Index: index})
		}
	}},
	{"veth gone", func(w *walk, a act) {
		w.outside(func(m *servicetest.Machine) { m.RemoveLink(fmt.Sprintf("veth%d", 1+a.a%max(1, w.veths))) })
	}},
	{"tamper", func(w *walk, a act) {
		bridge := []string{"gway0", "gway1", "virt0"}[a.b%3]
		switch a.a % 17 {
		case 14:
			w.m.FlushProxies()
		case 15:
			w.m.FlushForward()
		case 16:
			w.m.AddSetEntry(plan.SetOut6, vnet.SetEntry{Prefix: pfx("2001:db8:a::/64"), Interface: "gone0"})
		case 0:
			w.m.FlushChains()
		case 1:
			w.m.RemoveRules(func(r vnet.Rule) bool { return r.Protocol == plan.Protocol })
		case 2:
			w.m.RemoveRoutes(func(r vnet.Route) bool { return r.Protocol == plan.Protocol })
		case 3:
			w.m.SetDown(bridge)
		case 4:
			w.m.EditLink(bridge, func(l *vnet.Link) { l.MTU, l.Group, l.MulticastSnooping = 1300, 0, true })
		case 5:
			w.m.StopServer(names[a.b%3])
		case 6:
			w.m.RemoveLink(bridge)
		case 7:
			w.m.AddSetEntry(plan.SetOut, vnet.SetEntry{Prefix: pfx("192.168.231.0/24"), Interface: "gone0"})
		case 8:
			w.m.AddRule(vnet.Rule{Priority: plan.PriorityMain, IIF: bridge, Table: 254, SuppressPrefixLength: 1, Protocol: plan.Protocol})
		case 9:
			w.m.FlushGuards()
		case 10:
			w.m.StopGate()
		case 11:
			removePair(w.world, names[a.b%3])
		case 12:
			inner, outer := plan.PairNames(names[a.b%3])
			w.m.EditLink([]string{inner, outer}[a.c%2], func(l *vnet.Link) { l.Master, l.Isolated, l.Up, l.MTU = 0, false, a.c%3 == 0, 1300 })
		case 13:
			_, outer := plan.PairNames(names[a.b%3])
			w.m.EditLink(outer, func(l *vnet.Link) { l.Isolated = false })
		}
	}},
}

func (w *walk) act(a act) { acts[a.what].do(w, a) }

// check returns what is wrong with the machine at rest.
func (w *walk) check() error {
	have := w.m.Observed(w.want)
	r := plan.Plan(w.want, have)
	if len(r.Ops) > 0 {
		return fmt.Errorf("the plan against its own result is not empty: %s", strings.Join(texts(r.Ops), "; "))
	}
	if a, b := w.m.Foreign(true), w.twin.Foreign(false); !within(a, b) {
		return fmt.Errorf("foreign state differs:\n%s\nwithout Gangway:\n%s", a, b)
	}
	bridges := map[string]bool{}
	for _, d := range r.Networks {
		if !d.Active {
			continue
		}
		bridges[d.Bridge] = true
		if err := checkNetwork(w, d, &have); err != nil {
			return fmt.Errorf("network %s: %w", d.Name, err)
		}
		if err := checkIPv6(w, d, &have); err != nil {
			return fmt.Errorf("IPv6 of network %s: %w", d.Name, err)
		}
	}
	for _, l := range have.Kernel.Links {
		if _, ours := plan.OwnerOf(l); ours && !bridges[l.Name] {
			return fmt.Errorf("bridge %s is nobody's", l.Name)
		}
	}
	for set, entries := range have.Firewall.Sets {
		for _, e := range entries {
			if _, exists := have.Kernel.LinkByName(e.Interface); !exists {
				return fmt.Errorf("set %s has %s,%s, which is gone", set, e.Prefix, e.Interface)
			}
		}
	}
	return nil
}

func checkNetwork(w *walk, d plan.Decision, have *vnet.Observed) error {
	settings := w.find(d.Name).Settings
	bridge, exists := have.Kernel.LinkByName(d.Bridge)
	if !exists || !bridge.Up {
		return fmt.Errorf("bridge %s is not there or down", d.Bridge)
	}
	for _, a := range have.Kernel.Addresses {
		own := slices.ContainsFunc(d.IPv6Prefixes, func(p netip.Prefix) bool { return p.Contains(a.Prefix.Addr()) })
		if a.Link == bridge.Index && a.Prefix != d.Address && !own && !a.Prefix.Addr().IsLinkLocalUnicast() {
			return fmt.Errorf("the bridge has the address %s", a.Prefix)
		}
	}
	for _, u := range have.Uplinks.List {
		for _, p := range u.Addresses {
			if d.Subnet.IsValid() && p.Overlaps(d.Subnet) {
				return fmt.Errorf("its subnet %s overlaps %s of %s", d.Subnet, p, u.Interface)
			}
		}
	}
	via, found := defaultRoute(d.Bridge, have)
	want := ""
	if d.Uplink != "" {
		want = d.Uplink
		u, _ := have.Uplinks.Find(d.Uplink)
		if !u.Usable {
			return fmt.Errorf("it is bound to %s, which isn't usable", d.Uplink)
		}
		if settings.Uplink != "auto" && settings.Uplink != d.Uplink {
			return fmt.Errorf("it is bound to %s, not to %s", d.Uplink, settings.Uplink)
		}
	}
	forwards := d.IPv4State == "nat" || d.IPv4State == "routed" || d.IPv4State == "offline"
	switch {
	case forwards && !found:
		return fmt.Errorf("it has no rules, and so the host's default route")
	case found && !forwards:
		return fmt.Errorf("it is %s and has rules", d.IPv4State)
	case via != want:
		return fmt.Errorf("its default route leads to %q, not to %q", via, want)
	}
	primary, _ := have.Uplinks.Find(have.Uplinks.Primary)
	for _, rule := range have.Kernel.Rules {
		for _, r := range have.Kernel.Routes {
			if rule.IIF != d.Bridge || r.Table != rule.Table || r.Protocol != plan.Protocol || r.Type != vnet.RouteUnicast {
				continue
			}
			l, _ := have.Kernel.LinkByIndex(r.Link)
			u, _ := have.Uplinks.Find(l.Name)
			if !u.Usable || !mayUse(settings, u, primary.Kind == vnet.VPN) {
				return fmt.Errorf("its table %d has a route by %s, which it may not use", r.Table, l.Name)
			}
		}
	}
	for _, e := range have.Firewall.Sets[plan.SetOut] {
		u, _ := have.Uplinks.Find(e.Interface)
		if e.Prefix == d.Subnet && settings.Uplink == "auto" && settings.VPN == "follow" && primary.Kind == vnet.VPN && u.Kind != vnet.VPN {
			return fmt.Errorf("it may leave by %s, past the VPN", e.Interface)
		}
		if e.Prefix == d.Subnet && settings.Uplink == "auto" && settings.VPN != "follow" && u.Kind == vnet.VPN {
			return fmt.Errorf("it may leave by the VPN %s", e.Interface)
		}
	}
	return nil
}

// mayUse tells whether the settings let a default route lead to the uplink, while a
// full-tunnel VPN is up or not.
func mayUse(s vnet.Settings, u vnet.Uplink, tunnelled bool) bool {
	switch {
	case s.Uplink != "auto":
		return u.Interface == s.Uplink
	case tunnelled && s.VPN == "block":
		return false
	case tunnelled && s.VPN == "follow":
		return u.Kind == vnet.VPN
	}
	return u.Kind != vnet.VPN
}

// defaultRoute follows the bridge's rules as the kernel does; found is false when they end
// without a verdict, so that the host's own default route would be taken.
func defaultRoute(bridge string, have *vnet.Observed) (via string, found bool) {
	for _, rule := range have.Kernel.Rules {
		if rule.IIF != bridge || rule.SuppressPrefixLength >= 0 {
			continue
		}
		var best *vnet.Route
		for i := range have.Kernel.Routes {
			r := &have.Kernel.Routes[i]
			if r.Table == rule.Table && r.Dst.Bits() == 0 && (best == nil || r.Metric < best.Metric) {
				best = r
			}
		}
		if best != nil {
			l, _ := have.Kernel.LinkByIndex(best.Link)
			if best.Type == vnet.RouteUnreachable {
				return "", true
			}
			return l.Name, true
		}
	}
	return "", false
}

// within tells whether each line of a is one of b's: a leaves out what is borrowed.
func within(a, b string) bool {
	lines := strings.Split(b, "\n")
	extra := 0
	for _, line := range strings.Split(a, "\n") {
		if !slices.Contains(lines, line) {
			return false
		}
		extra++
	}
	missing := len(lines) - extra
	borrowed := strings.Count(b, "sysctl ") - strings.Count(a, "sysctl ")
	return missing == borrowed
}
