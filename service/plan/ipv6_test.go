package plan_test

import (
	"fmt"
	"net/netip"
	"slices"

	"gangway/service/plan"
	"gangway/service/servicetest"
	"gangway/service/vnet"
)

// Uplinks that are bridges, and the routers of three links: A and B, and A after its provider
// gave it another prefix.
var (
	br0 = servicetest.Dock{Name: "br0", Kind: vnet.BridgeKind, Address: pfx("10.1.0.5/24"), Gateway: ip("10.1.0.1"),
		Default: true, Metric: 100, UUID: "uuid-br0"}
	br1 = servicetest.Dock{Name: "br1", Kind: vnet.BridgeKind, Address: pfx("10.4.0.5/24"), Gateway: ip("10.4.0.1"),
		Default: true, Metric: 50, UUID: "uuid-br1"}

	routerA  = vnet.Router{Address: ip("fe80::a"), MAC: "02:00:00:00:0a:01", Default: true, Prefixes: prefixes("2001:db8:a::/64"), Autonomous: prefixes("2001:db8:a::/64")}
	routerA2 = vnet.Router{Address: ip("fe80::a"), MAC: "02:00:00:00:0a:01", Default: true, Prefixes: prefixes("2001:db8:a2::/64"), Autonomous: prefixes("2001:db8:a2::/64")}
	routerA3 = vnet.Router{Address: ip("fe80::a3"), MAC: "02:00:00:00:0a:03", Default: true, Prefixes: prefixes("2001:db8:a::/64"), Autonomous: prefixes("2001:db8:a::/64")}
	routerB  = vnet.Router{Address: ip("fe80::b"), MAC: "02:00:00:00:0b:01", Default: true, Prefixes: prefixes("2001:db8:b::/64"), Autonomous: prefixes("2001:db8:b::/64")}
)

func prefixes(list ...string) (p []netip.Prefix) {
	for _, s := range list {
		p = append(p, pfx(s))
	}
	return p
}

func hear(ifname string, routers ...vnet.Router) func(*world) {
	return func(w *world) { w.m.SetRouters(ifname, true, routers...) }
}

func deaf(ifname string) func(*world) {
	return func(w *world) { w.m.SetRouters(ifname, false) }
}

func init() {
	onA := both(start, plug(br0), hear("br0", routerA))
	for name, steps := range map[string][]step{
		"ipv6-bridge": {
			{name: "on br0, where router A speaks", do: onA, first: true},
			{name: "br1 is primary, its router B was heard", do: both(hear("br1", routerB), plug(br1))},
			{name: "back to br0", do: func(w *world) { w.m.Unplug("br1") }},
			{name: "stopped", do: func(w *world) { w.find("default").Active = false }},
			{name: "started elsewhere", do: both(func(w *world) { w.find("default").Active = true }, hear("br0", routerB))},
			{name: "deleted", do: func(w *world) { w.forget("default") }},
		},
		"ipv6-no-router": {
			{name: "nobody speaks yet", do: both(start, plug(br0), deaf("br0")), first: true},
			{name: "nobody spoke for five seconds", do: hear("br0")},
			{name: "a router speaks", do: hear("br0", routerA)},
			{name: "a new process has heard nobody yet", do: deaf("br0"), first: true},
			{name: "it hears the same", do: hear("br0", routerA)},
			{name: "no default router, but a prefix", do: hear("br0", vnet.Router{Address: routerA.Address, MAC: routerA.MAC, Prefixes: routerA.Prefixes})},
			{name: "the router is gone", do: hear("br0")},
		},
		"ipv6-prefix-change": {
			{name: "prefix A", do: onA, first: true},
			{name: "both prefixes", do: hear("br0", vnet.Router{Address: routerA.Address, MAC: routerA.MAC, Default: true,
				Prefixes: append(slices.Clone(routerA.Prefixes), routerA2.Prefixes...)})},
			{name: "the new one alone", do: hear("br0", routerA2)},
		},
		"ipv6-shared-prefix": {
			{name: "two routers with one prefix", do: both(start, plug(br0), hear("br0", routerA, routerA3)), first: true},
			{name: "one is gone", do: hear("br0", routerA3)},
		},
		"ipv6-same-link": {
			{name: "on br0", do: onA, first: true},
			{name: "br1 is primary, on the same link", do: both(hear("br1", routerA), plug(br1))},
		},
		"ipv6-to-wifi": {
			{name: "on br0", do: onA, first: true},
			{name: "br0 lost its carrier a moment ago", do: func(w *world) { w.m.LoseCarrier("br0", true) }},
			{name: "it is back", do: func(w *world) { w.m.SetCarrier("br0", true) }},
			{name: "lost again, with a Wi-Fi to go to", do: both(plug(wlan0), func(w *world) { w.m.LoseCarrier("br0", true) })},
			{name: "back on br0", do: func(w *world) { w.m.SetCarrier("br0", true) }},
			{name: "lost for good, nowhere to go", do: both(func(w *world) { w.m.Unplug("wlan0") }, func(w *world) { w.m.LoseCarrier("br0", false) })},
		},
		"ipv6-methods": {
			{name: "auto", do: onA, first: true},
			{name: "bridge", do: set("default", "ipv6-method", "bridge")},
			{name: "link-local", do: set("default", "ipv6-method", "link-local")},
			{name: "off", do: set("default", "ipv6-method", "off")},
			{name: "host-access all", do: both(set("default", "ipv6-method", "auto"), set("default", "host-access", "all"))},
			{name: "br0 is never shared", do: func(w *world) { w.want.NeverShared = []string{"uuid-br0"} }},
			{name: "a routed network would show its guests there", do: set("default", "ipv4-method", "routed")},
			{name: "translated they don't show", do: set("default", "ipv4-method", "nat")},
			{name: "br0 may be shared, under a VPN", do: both(func(w *world) { w.want.NeverShared = nil }, plug(tun0))},
			{name: "past the VPN", do: set("default", "vpn", "bypass")},
			{name: "pinned elsewhere", do: set("default", "uplink", "wlan0")},
		},
		"ipv6-tampering": {
			{name: "on br0", do: onA, first: true},
			{name: "the guard is gone", do: func(w *world) { w.m.FlushGuards() }},
			{name: "the gate is gone", do: func(w *world) { w.m.StopGate() }},
			{name: "the outer end is up in another bridge, the inner in none", do: func(w *world) {
				inner, outer := plan.PairNames("default")
				w.m.AddLink(vnet.Link{Name: "other0", Kind: "bridge", Type: 1, MTU: 1500, Up: true})
				other := w.m.Observed(w.want).Kernel
				l, _ := other.LinkByName("other0")
				w.m.EditLink(outer, func(o *vnet.Link) { o.Master = l.Index })
				w.m.EditLink(inner, func(i *vnet.Link) { i.Master = 0 })
			}},
			{name: "an end is gone, and with it the other", do: func(w *world) { removePair(w, "default") }},
			{name: "the bridge takes advertisements", do: func(w *world) { w.m.SetSysctl("net/ipv6/conf/gway0/accept_ra", "1") }},
		},
	} {
		scenarios[name] = steps
	}
}

func removePair(w *world, network string) {
	inner, outer := plan.PairNames(network)
	w.m.RemoveLink(inner)
	w.m.RemoveLink(outer)
}

// checkIPv6 returns what is wrong with a network's IPv6 on a machine at rest.
func checkIPv6(w *walk, d plan.Decision, have *vnet.Observed) error {
	inner, outer := plan.PairNames(d.Name)
	in, haveInner := have.Kernel.LinkByName(inner)
	out, haveOuter := have.Kernel.LinkByName(outer)
	if err := checkRouter(w, d, have); err != nil {
		return err
	}
	up := d.Uplink6()
	if d.IPv6State != "bridge" && d.IPv6State != "link-local" || have.NDP.Serving[d.Name].Uplink != "" {
		if haveInner || haveOuter {
			return fmt.Errorf("it is %s, and has an IPv6-only link", d.IPv6State)
		}
		return nil
	}
	if up == "" {
		if haveInner || haveOuter || len(w.m.Taught(d.Name).Routers) > 0 {
			return fmt.Errorf("it has no IPv6 uplink, but a link %v %v, and its guests know %v", haveInner, haveOuter, w.m.Taught(d.Name).Routers)
		}
		if d.IPv6State == "bridge" {
			return fmt.Errorf("it is bridged to nothing")
		}
		return nil
	}
	bridge, _ := have.Kernel.LinkByName(up)
	own, _ := have.Kernel.LinkByName(d.Bridge)
	u, _ := have.Uplinks.Find(up)
	switch {
	case in.Master != own.Index || !in.Up:
		return fmt.Errorf("the inner end %+v is no port of %s", in, d.Bridge)
	case out.Master != bridge.Index || !out.Isolated:
		return fmt.Errorf("the outer end %+v is no isolated port of %s", out, up)
	case out.Up != plan.HasForeignCarrier(&have.Kernel, bridge.Index):
		return fmt.Errorf("the outer end is up %v, without a carrier of the uplink's", out.Up)
	case in.MTU != bridge.MTU || out.MTU != bridge.MTU:
		return fmt.Errorf("the link's MTU is %d and %d, the uplink's %d", in.MTU, out.MTU, bridge.MTU)
	case have.Firewall.Guards[d.Name] == "":
		return fmt.Errorf("the link has no guard")
	case !have.Gate:
		return fmt.Errorf("there is no gate")
	case slices.Contains(w.want.NeverShared, u.ConnectionUUID):
		return fmt.Errorf("it is on %s, which is never shared", up)
	}
	heard := have.NDP.Advertised[up]
	for _, r := range w.m.Taught(d.Name).Routers {
		there := slices.ContainsFunc(heard.Routers, func(h vnet.Router) bool { return h.Address == r.Address && slices.Equal(h.Prefixes, r.Prefixes) })
		if !there && heard.Settled {
			return fmt.Errorf("its guests know the router %v, which isn't on %s", r, up)
		}
	}
	return nil
}
