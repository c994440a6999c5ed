package plan_test

import (
	"fmt"
	"net/netip"
	"slices"

	"gangway/service/plan"
	"gangway/service/servicetest"
	"gangway/service/vnet"
)

// Uplinks that can't be bridged to, with IPv6.
var (
	wlan6 = with6(wlan0, "fe80::a", "2001:db8:a::7/64")
	eth6  = with6(eth0, "fe80::b", "2001:db8:b::5/64")
	wwan6 = with6(servicetest.Dock{Name: "wwan0", Kind: vnet.WWAN, Address: pfx("10.60.0.2/32"), Default: true, Metric: 700, MTU: 1400}, "", "2001:db8:c::2/64")
	tun6  = with6(tun0, "", "2001:db8:f::2/128")
)

func with6(d servicetest.Dock, gateway string, addresses ...string) servicetest.Dock {
	d.IPv6, d.Default6 = prefixes(addresses...), true
	if gateway != "" {
		d.Gateway6 = ip(gateway)
	}
	return d
}

// advertised has the kernel, not a network manager, go by router advertisements.
func advertised(d servicetest.Dock) servicetest.Dock {
	d.Advertised = true
	return d
}

func guests(network string, addresses ...string) func(*world) {
	return func(w *world) {
		var list []netip.Addr
		for _, a := range addresses {
			list = append(list, ip(a))
		}
		w.m.SetNeighbours(network, list...)
	}
}

func unplug(name string) func(*world) { return func(w *world) { w.m.Unplug(name) } }

func nothing(*world) {}

func init() {
	onWiFi := both(start, plug(wlan6), hear("wlan0", routerA), guests("default", "2001:db8:a::101", "2001:db8:a::102"))
	for name, steps := range map[string][]step{
		"ipv6-proxy": {
			{name: "nobody speaks yet on Wi-Fi", do: both(start, plug(wlan6), deaf("wlan0")), first: true},
			{name: "router A speaks", do: hear("wlan0", routerA)},
			{name: "guests have addresses, also some that aren't theirs", do: guests("default", "2001:db8:a::101", "2001:db8:a::102", "2001:db8:a::7", "2001:db8:b::1")},
			{name: "a new process has heard nobody yet", do: deaf("wlan0"), first: true},
			{name: "it hears the same", do: hear("wlan0", routerA)},
			{name: "one guest left", do: guests("default", "2001:db8:a::102")},
			{name: "no default router, but a prefix", do: hear("wlan0", vnet.Router{Address: routerA.Address, MAC: routerA.MAC, Prefixes: routerA.Prefixes, Autonomous: routerA.Autonomous})},
			{name: "the router is gone", do: hear("wlan0")},
			{name: "it is back", do: hear("wlan0", routerA)},
			{name: "stopped", do: func(w *world) { w.find("default").Active = false }},
		},
		"ipv6-proxy-moves": {
			{name: "on Wi-Fi", do: onWiFi, first: true},
			{name: "docked in, and nobody spoke there yet", do: both(deaf("eth0"), plug(eth6))},
			{name: "there is router B", do: both(hear("eth0", routerB), plug(eth6))},
			{name: "guests have made themselves addresses", do: guests("default", "2001:db8:b::101", "2001:db8:a::101")},
			{name: "the cable was lost a moment ago, and there is the Wi-Fi", do: func(w *world) { w.m.LoseCarrier("eth0", true) }},
			{name: "the Wi-Fi is lost a moment ago, too", do: func(w *world) { w.m.LoseCarrier("wlan0", true) }},
			{name: "for good", do: func(w *world) { w.m.LoseCarrier("wlan0", false); w.m.LoseCarrier("eth0", false) }},
		},
		"ipv6-proxy-same-link": {
			{name: "on Wi-Fi", do: onWiFi, first: true},
			{name: "docked in, into the same link", do: both(hear("eth0", routerA), plug(with6(eth0, "fe80::a", "2001:db8:a::5/64")))},
		},
		"ipv6-between-methods": {
			{name: "bridged on br0", do: both(start, plug(br0), hear("br0", routerB)), first: true},
			{name: "br0 is gone, Wi-Fi", do: both(plug(wlan6), hear("wlan0", routerA), unplug("br0"), guests("default", "2001:db8:a::101"))},
			{name: "the phone", do: both(plug(wwan6), unplug("wlan0"), guests("default", "2001:db8:c::101"))},
			{name: "no IPv6 at all", do: both(plug(eth0), hear("eth0"))},
			{name: "translated", do: both(plug(with6(eth0, "fe80::d", "2001:db8:d::5/128")), hear("eth0", vnet.Router{Address: ip("fe80::d"), MAC: "02:00:00:00:0d:01", Default: true}), set("default", "nat66-fallback", true))},
			{name: "bridged again", do: both(plug(br0), unplug("eth0"), unplug("wwan0"), hear("br0", routerA))},
		},
		"ipv6-two-proxied": {
			{name: "two networks on Wi-Fi", do: both(onWiFi, func(w *world) { w.network("lab", nil) }, guests("lab", "2001:db8:a::201", "2001:db8:a::102"))},
			{name: "one doesn't let its guests reach each other, and is open to the outside", do: both(set("lab", "isolate-ports", true), set("lab", "inbound", "allow"))},
			{name: "one is pinned elsewhere", do: both(hear("eth0", routerB), plug(prefer(eth6, 800)), set("lab", "uplink", "eth0"), guests("lab", "2001:db8:b::201"))},
			{name: "where it is pinned to is gone", do: unplug("eth0")},
		},
		"ipv6-routed": {
			{name: "no prefix", do: both(start, plug(eth6), hear("eth0", routerB), set("default", "ipv6-method", "routed")), first: true},
			{name: "a prefix for two", do: both(set("default", "ipv6-prefix", "2001:db8:5000::/63"), func(w *world) {
				w.network("lab", map[string]any{"ipv6-method": "routed", "ipv6-prefix": "2001:db8:5000::/63"})
			})},
			{name: "a third", do: func(w *world) {
				w.network("more", map[string]any{"ipv6-method": "routed", "ipv6-prefix": "2001:db8:5000::/63"})
			}},
			{name: "the first is gone", do: func(w *world) { w.forget("default") }},
			{name: "restarted", do: nothing, first: true},
		},
		"ipv6-delegated": {
			{name: "a single address", do: both(start, plug(with6(eth0, "fe80::d", "2001:db8:d::5/128")),
				hear("eth0", vnet.Router{Address: ip("fe80::d"), MAC: "02:00:00:00:0d:01", Default: true})), first: true},
			{name: "a prefix is delegated", do: plug(func() servicetest.Dock {
				d := with6(eth0, "fe80::d", "2001:db8:d::5/128")
				d.Delegated = prefixes("2001:db8:d00::/56")
				return d
			}())},
		},
		"ipv6-nat66": {
			{name: "asked for", do: both(start, set("default", "ipv6-method", "nat66"), plug(eth6), hear("eth0", routerB)), first: true},
			{name: "another uplink, whose address isn't usable yet", do: both(func(w *world) {
				w.m.AddFlow(vnet.Flow{Protocol: 17, Source: vnet.UniqueLocal("test", "default").Addr().Next().Next(), Destination: ip("2001:db8:ffff::10"), Translated: ip("2001:db8:b::5")})
			}, plug(prefer(with6(wlan0, "fe80::a"), 50)), hear("wlan0", routerA))},
			{name: "it is usable", do: plug(prefer(with6(wlan0, "fe80::a", "2001:db8:a::7/64"), 50))},
			{name: "stopped", do: func(w *world) { w.find("default").Active = false }},
		},
		"ipv6-vpn": {
			{name: "on Wi-Fi", do: onWiFi, first: true},
			{name: "a VPN without IPv6", do: plug(tun0)},
			{name: "a VPN without IPv4", do: both(unplug("tun0"), plug(func() servicetest.Dock {
				d := tun6
				d.Default = false
				return d
			}()))},
			{name: "a VPN with IPv6", do: plug(tun6)},
			{name: "which may be translated to", do: set("default", "nat66-fallback", true)},
			{name: "past it", do: set("default", "vpn", "bypass")},
			{name: "blocked", do: set("default", "vpn", "block")},
			{name: "the VPN is gone", do: unplug("tun0")},
		},
		"ipv6-host": {
			{name: "the kernel goes by advertisements", do: both(start, plug(advertised(wlan6)), hear("wlan0", routerA), guests("default", "2001:db8:a::101")), first: true},
			{name: "somebody switches forwarding off", do: func(w *world) { w.m.SetSysctl("net/ipv6/conf/all/forwarding", "0") }},
			{name: "the kernel's proxies, routes and the filter are gone", do: both(func(w *world) { w.m.FlushProxies(); w.m.FlushForward() }, func(w *world) {
				w.m.RemoveRoutes(func(r vnet.Route) bool { return r.Dst.Addr().Is6() && r.Protocol == plan.Protocol })
			})},
			{name: "IPv6 is switched off on the uplink", do: func(w *world) { w.m.SetSysctl("net/ipv6/conf/wlan0/disable_ipv6", "1") }},
			{name: "and on again", do: func(w *world) { w.m.SetSysctl("net/ipv6/conf/wlan0/disable_ipv6", "0") }},
			{name: "the host becomes a router", do: func(w *world) { w.m.SetSysctl("net/ipv6/conf/all/forwarding", "1") }},
			{name: "stopped", do: func(w *world) { w.find("default").Active = false }},
		},
	} {
		scenarios[name] = steps
	}
}

// checkRouter holds a network whose bridge is its guests' router against the machine.
func checkRouter(w *walk, d plan.Decision, have *vnet.Observed) error {
	served, serving := have.NDP.Serving[d.Name]
	routes := d.IPv6State == "proxy" || d.IPv6State == "routed" || d.IPv6State == "nat66"
	rules := slices.ContainsFunc(have.Kernel.Rules6, func(r vnet.Rule) bool { return r.IIF == d.Bridge })
	own, _ := have.Kernel.LinkByName(d.Bridge)
	switch {
	case routes != serving:
		return fmt.Errorf("it is %s, and served: %v", d.IPv6State, serving)
	case routes != rules:
		return fmt.Errorf("it is %s, and has rules: %v", d.IPv6State, rules)
	case have.Kernel.Sysctls["net/ipv6/conf/"+d.Bridge+"/forwarding"] == "1" != routes:
		return fmt.Errorf("it is %s, and its bridge forwards: %v", d.IPv6State, !routes)
	}
	for _, r := range have.Kernel.Routes6 {
		if r.Protocol == plan.Protocol && r.Link == own.Index && (!routes || !slices.ContainsFunc(d.IPv6Prefixes, func(p netip.Prefix) bool { return p.Contains(r.Dst.Addr()) })) {
			return fmt.Errorf("it has the route %s", r.Dst)
		}
	}
	if !routes {
		return nil
	}
	u, _ := have.Uplinks.Find(served.Uplink)
	primary, _ := have.Uplinks.Find(have.Uplinks.Primary)
	settings := w.find(d.Name).Settings
	switch {
	case served.Uplink != d.Uplink6():
		return fmt.Errorf("it is served by %s, not by %s", served.Uplink, d.Uplink6())
	case !mayUse(settings, u, primary.Kind == vnet.VPN):
		return fmt.Errorf("it leaves by %s, which it may not use", served.Uplink)
	case d.IPv6State != "nat66" && slices.Contains(w.want.NeverShared, u.ConnectionUUID):
		return fmt.Errorf("its guests appear on %s, which is never shared", served.Uplink)
	case have.Firewall.Forward == "":
		return fmt.Errorf("there is no forward filter")
	}
	for _, rule := range have.Kernel.Rules6 {
		for _, r := range have.Kernel.Routes6 {
			if rule.IIF == d.Bridge && rule.SuppressPrefixLength < 0 && r.Table == rule.Table && r.Protocol == plan.Protocol && r.Type == vnet.RouteUnicast && r.Link != u.Index {
				return fmt.Errorf("its table has a route by link %d, not by %s", r.Link, u.Interface)
			}
		}
	}
	taught := w.m.Taught(d.Name).Routers
	if len(taught) != 1 || !slices.Equal(taught[0].Prefixes, d.IPv6Prefixes) {
		return fmt.Errorf("its guests know %v, and may use %v", taught, d.IPv6Prefixes)
	}
	for _, e := range have.Firewall.Sets[plan.SetOut6] {
		if slices.Contains(d.IPv6Prefixes, e.Prefix) && e.Interface != served.Uplink {
			if u, _ := have.Uplinks.Find(e.Interface); settings.VPN == "follow" && settings.Uplink == "auto" && u.Kind != vnet.VPN && primary.Kind == vnet.VPN {
				return fmt.Errorf("its prefix %s may leave by %s", e.Prefix, e.Interface)
			}
		}
	}
	return nil
}
