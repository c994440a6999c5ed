package plan_test

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gangway/service/plan"
	"gangway/service/servicetest"
	"gangway/service/vnet"
)

var update = flag.Bool("update", false, "rewrite the goldens")

// step is a change of the world, what it is called in the golden, and whether the process is new.
type step struct {
	name  string
	do    func(*world)
	first bool
}

func start(w *world) { w.network("default", nil) }

func plug(docks ...servicetest.Dock) func(*world) {
	return func(w *world) {
		for _, d := range docks {
			w.m.Plug(d)
		}
	}
}

func both(fs ...func(*world)) func(*world) {
	return func(w *world) {
		for _, f := range fs {
			f(w)
		}
	}
}

func set(name string, key string, value any) func(*world) {
	return func(w *world) { w.network(name, map[string]any{key: value}) }
}

// in copies a dock with another address and router.
func in(d servicetest.Dock, address, gateway string) servicetest.Dock {
	d.Address, d.Gateway = pfx(address), ip(gateway)
	d.DNS = []netip.Addr{d.Gateway}
	return d
}

func prefer(d servicetest.Dock, metric uint32) servicetest.Dock {
	d.Metric = metric
	return d
}

var scenarios = map[string][]step{
	"default-first-start": {
		{name: "no uplink", do: start, first: true},
		{name: "eth0 comes", do: plug(eth0)},
		{name: "stopped", do: func(w *world) { w.find("default").Active = false }},
	},
	"switch-both-up": {
		{name: "on wlan0", do: both(start, plug(wlan0)), first: true},
		{name: "docked in: eth0 is primary", do: plug(eth0)},
		{name: "roamed: wlan0 is preferred", do: plug(prefer(wlan0, 50))},
		{name: "eth0 is gone", do: func(w *world) { w.m.Unplug("eth0") }},
	},
	"vpn-rules": {
		{name: "one network follows, one bypasses", do: both(start, plug(eth6), hear("eth0", routerB), func(w *world) { w.network("past", map[string]any{"vpn": "bypass"}) }), first: true},
		{name: "a VPN's rules come before ours", do: func(w *world) {
			for _, ipv6 := range []bool{false, true} {
				w.m.AddRule(vnet.Rule{IPv6: ipv6, Priority: 21098, Table: 254, SuppressPrefixLength: 0})
				w.m.AddRule(vnet.Rule{IPv6: ipv6, Priority: 21099, Table: 51820, SuppressPrefixLength: -1, Foreign: true})
			}
		}},
		{name: "they are gone", do: func(w *world) {
			w.m.RemoveRules(func(r vnet.Rule) bool { return r.Priority == 21098 || r.Priority == 21099 })
		}},
	},
	"carrier-loss": {
		{name: "both up", do: both(start, plug(eth0, wlan0)), first: true},
		{name: "eth0 lost its carrier, the host still uses it", do: func(w *world) { w.m.SetCarrier("eth0", false) }},
		{name: "it came back", do: func(w *world) { w.m.SetCarrier("eth0", true) }},
	},
	"offline-and-back": {
		{name: "on eth0", do: both(start, plug(eth0)), first: true},
		{name: "no carrier", do: func(w *world) { w.m.SetCarrier("eth0", false) }},
		{name: "no uplink", do: func(w *world) { w.m.Unplug("eth0") }},
		{name: "back, a new index", do: plug(eth0)},
	},
	"vpn": {
		{name: "three policies, no VPN", do: both(start, set("bypass", "vpn", "bypass"), set("block", "vpn", "block"), plug(eth0)), first: true},
		{name: "VPN up", do: plug(tun0)},
		{name: "VPN not usable, still the host's default route", do: func(w *world) { w.m.SetCarrier("tun0", false) }},
		{name: "VPN down", do: func(w *world) { w.m.Unplug("tun0") }},
	},
	"vpn-split-tunnel": {
		{name: "no VPN", do: both(start, set("block", "vpn", "block"), plug(eth0)), first: true},
		{name: "VPN with one route and a domain", do: func(w *world) {
			split := tun0
			split.Default, split.Routes = false, []netip.Prefix{pfx("10.200.0.0/16")}
			w.m.SetHost(servicetest.HostDNS{Upstreams: []vnet.Upstream{{Address: ip("10.200.0.53"), Interface: "tun0", Domains: []string{"corp.example"}}}})
			w.m.Plug(split)
		}},
	},
	"pinned": {
		{name: "to an interface that is not there", do: both(set("pinned", "uplink", "wlan0"), plug(eth0)), first: true},
		{name: "it comes; strict rp_filter on it", do: func(w *world) {
			w.m.Plug(wlan0)
			w.m.SetSysctl("net/ipv4/conf/wlan0/rp_filter", "1")
		}},
		{name: "it loses its carrier", do: func(w *world) { w.m.SetCarrier("wlan0", false) }},
		{name: "it vanishes", do: func(w *world) { w.m.Unplug("wlan0") }},
		{name: "no uplink at all by settings", do: set("pinned", "uplink", "none")},
	},
	"clash-renumber": {
		{name: "on eth0, a port", do: both(start, plug(eth0), attach("default", "veth0")), first: true},
		{name: "wlan0's LAN is the guests' subnet, its router the bridge's address", do: plug(prefer(in(wlan0, "192.168.231.9/24", "192.168.231.1"), 50))},
		{name: "away again", do: func(w *world) { w.m.Unplug("wlan0") }},
	},
	"clash-report": {
		{name: "on eth0", do: both(start, set("default", "on-clash", "report"), plug(eth0)), first: true},
		{name: "clash", do: plug(in(wlan0, "192.168.231.9/24", "192.168.231.1"))},
		{name: "away again", do: func(w *world) { w.m.Unplug("wlan0") }},
	},
	"clash-fixed": {
		{name: "fixed subnet", do: both(set("fixed", "ipv4-subnet", "192.168.77.0/25"), plug(eth0)), first: true},
		{name: "clash", do: plug(in(wlan0, "192.168.77.9/24", "192.168.77.1"))},
		{name: "away again", do: func(w *world) { w.m.Unplug("wlan0") }},
	},
	"methods": {
		{name: "isolated, routed, off", do: both(set("isolated", "ipv4-method", "isolated"), set("routed", "ipv4-method", "routed"),
			set("without", "ipv4-method", "off"), set("without", "ipv6-method", "off"), plug(eth0)), first: true},
		{name: "isolated becomes nat, routed off, without isolated", do: both(set("isolated", "ipv4-method", "nat"), set("routed", "ipv4-method", "off"), set("without", "ipv4-method", "isolated"))},
	},
	"update": {
		{name: "running with a port", do: both(start, plug(eth0), attach("default", "veth0")), first: true},
		{name: "bridge name", do: set("default", "bridge", "virt0")},
		{name: "mtu", do: set("default", "mtu", uint32(1400))},
		{name: "host-access", do: set("default", "host-access", "all")},
		{name: "isolate-ports", do: set("default", "isolate-ports", true)},
		{name: "reservation", do: set("default", "dhcp-hosts", []map[string]any{{"mac": "52:54:00:00:00:01", "address": "192.168.231.50", "hostname": "a"}})},
		{name: "domain", do: set("default", "domain", "guests.internal")},
		{name: "no DHCP", do: set("default", "dhcp", false)},
		{name: "subnet", do: both(set("default", "dhcp-hosts", []map[string]any{}), set("default", "ipv4-subnet", "10.77.0.0/16"))},
	},
	"uplink-mtu": {
		{name: "on eth0", do: both(start, plug(eth0)), first: true},
		{name: "VPN with a smaller MTU", do: plug(tun0)},
	},
	"ports": {
		{name: "isolated ports", do: both(start, set("default", "isolate-ports", true), attach("default", "veth0")), first: true},
		{name: "another", do: attach("default", "veth1")},
		{name: "one vanishes", do: func(w *world) { w.m.RemoveLink("veth0") }},
		{name: "another of the same name is not meant", do: func(w *world) { w.m.AddVeth("veth0") }},
		{name: "somebody switched isolation off and the port down", do: func(w *world) {
			w.m.EditLink("veth1", func(l *vnet.Link) { l.Isolated = false })
			w.m.SetDown("veth1")
		}},
		{name: "somebody took it out", do: func(w *world) { w.m.EditLink("veth1", func(l *vnet.Link) { l.Master = 0 }) }},
	},
	"foreign-bridge": {
		{name: "gway0 is somebody else's", do: func(w *world) {
			w.m.AddLink(vnet.Link{Name: "gway0", Kind: "bridge", Type: 1, MTU: 1500, Alias: "mine"})
			start(w)
			w.m.Plug(eth0)
		}, first: true},
		{name: "it is gone", do: func(w *world) { w.m.RemoveLink("gway0") }},
	},
	"one-bridge-two-networks": {
		{name: "both want gway0", do: both(start, set("other", "bridge", "gway0"), plug(eth0)), first: true},
		{name: "mended", do: set("other", "bridge", "gway1")},
	},
	"bridges-swapped": {
		{name: "two networks", do: both(start, set("other", "bridge", "gway1"), plug(eth0)), first: true},
		{name: "names swapped", do: both(set("default", "bridge", "gway1"), set("other", "bridge", "gway0"))},
	},
	"rp-filter": {
		{name: "strict everywhere, both up", do: func(w *world) {
			w.m.SetSysctl("net/ipv4/conf/all/rp_filter", "1")
			start(w)
			w.m.Plug(eth0)
			w.m.Plug(wlan0)
		}, first: true},
		{name: "guests leave before the host", do: func(w *world) { w.m.SetCarrier("eth0", false) }},
		{name: "the host follows", do: func(w *world) { w.m.Disconnect("eth0") }},
	},
	"ip-forward": {
		{name: "already on", do: func(w *world) {
			w.m.SetSysctl("net/ipv4/conf/all/forwarding", "1")
			start(w)
			w.network("isolated", map[string]any{"ipv4-method": "isolated"})
			w.m.Plug(eth0)
		}, first: true},
		{name: "switched off by somebody", do: func(w *world) { w.m.SetSysctl("net/ipv4/conf/all/forwarding", "0") }},
		{name: "switched on by somebody", do: func(w *world) { w.m.SetSysctl("net/ipv4/conf/all/forwarding", "1") }},
		{name: "stopped: it stays on", do: func(w *world) { w.find("default").Active = false }},
	},
	"crash-leftovers": {
		{name: "a new process finds", do: leftovers, first: true},
	},
	"tampering": {
		{name: "running", do: both(start, plug(eth0)), first: true},
		{name: "iptables -F", do: func(w *world) { w.m.FlushChains() }},
		{name: "address, routes and rules deleted", do: func(w *world) {
			w.m.RemoveAddress("gway0", pfx("192.168.231.1/24"))
			w.m.RemoveRoutes(func(r vnet.Route) bool { return r.Protocol == plan.Protocol })
			w.m.RemoveRules(func(r vnet.Rule) bool { return r.Protocol == plan.Protocol })
		}},
		{name: "bridge set down, its MAC, MTU, group and snooping changed", do: func(w *world) {
			w.m.SetDown("gway0")
			w.m.EditLink("gway0", func(l *vnet.Link) {
				l.MAC, l.MTU, l.Group, l.MulticastSnooping = "02:00:00:00:00:99", 1300, 0, true
			})
		}},
		{name: "dnsmasq killed", do: func(w *world) { w.m.StopServer("default") }},
		{name: "bridge deleted", do: func(w *world) { w.m.RemoveLink("gway0") }},
		{name: "forwarding off", do: func(w *world) {
			w.m.SetSysctl("net/ipv4/conf/gway0/forwarding", "0")
			w.m.SetSysctl("net/ipv4/conf/eth0/forwarding", "0")
		}},
	},
	"router-off-subnet": {
		{name: "a host address with a router outside", do: both(start, plug(in(eth0, "10.1.0.5/32", "10.9.9.1"))), first: true},
	},
	"readdressed": {
		{name: "on eth0", do: both(start, plug(eth0)), first: true},
		{name: "another subnet, another router", do: plug(in(eth0, "10.4.0.5/24", "10.4.0.1"))},
		{name: "no address", do: func(w *world) { w.m.Disconnect("eth0") }},
	},
	"stub-resolver": {
		{name: "the host has a resolver", do: func(w *world) {
			w.m.SetHost(servicetest.HostDNS{Stub: ip("127.0.0.53")})
			start(w)
			w.network("pinned", map[string]any{"uplink": "wlan0"})
			w.m.Plug(eth0)
			w.m.Plug(wlan0)
		}, first: true},
	},
}

func attach(network, ifname string) func(*world) {
	return func(w *world) {
		index := w.m.AddVeth(ifname)
		n := w.find(network)
		n.Ports = append(n.Ports, vnet.PortRef{Interface: ifname, Index: index})
	}
}

// leftovers is what processes that were killed, or older ones, may have left.
func leftovers(w *world) {
	start(w)
	w.m.Plug(eth0)
	if _, err := w.converge(true); err != nil {
		panic(err)
	}
	rule := vnet.Rule{Priority: plan.PriorityMain, IIF: "gway0", Table: 254, SuppressPrefixLength: 1, Protocol: plan.Protocol}
	w.m.AddRule(rule)
	rule.IIF = "gway7"
	w.m.AddRule(rule)
	w.m.AddRoute(vnet.Route{Table: plan.TablePinned + 17, Dst: pfx("0.0.0.0/0"), Metric: 1 << 31, Protocol: plan.Protocol, Type: vnet.RouteUnreachable}, "")
	w.m.AddRoute(vnet.Route{Table: plan.TableBypass, Dst: pfx("0.0.0.0/0"), Gateway: ip("10.1.0.1"), Protocol: plan.Protocol, Type: vnet.RouteUnicast}, "eth0")
	w.m.AddSetEntry(plan.SetOut, vnet.SetEntry{Prefix: pfx("192.168.231.0/24"), Interface: "wwan0"})
	w.m.AddSetEntry(plan.SetNAT, vnet.SetEntry{Prefix: pfx("192.168.200.0/24"), Interface: "eth0"})
	w.m.AddServer(vnet.Server{Network: "deleted", Digest: "x"})
	w.m.SetLeases("default", vnet.Lease{MAC: "52:54:00:00:00:01", Address: ip("192.168.199.7")})
	attach("default", "veth0")(w)
	w.m.EditLink("veth0", func(l *vnet.Link) { l.Master = 1000 })
	w.m.AddFlow(vnet.Flow{Protocol: 6, Source: ip("192.168.231.7"), Destination: ip("203.0.113.9"), Translated: ip("10.9.0.5")})
}

func TestGoldens(t *testing.T) {
	for name, steps := range scenarios {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			var out strings.Builder
			for _, s := range steps {
				s.do(w)
				results, err := w.converge(s.first)
				out.WriteString("# " + s.name + "\n")
				for i, r := range results {
					if i > 0 {
						out.WriteString("-- next round\n")
					}
					for _, op := range r.Ops {
						out.WriteString(op.String() + "\n")
					}
				}
				if err != nil {
					t.Errorf("%s: %v", s.name, err)
					out.WriteString("error: " + err.Error() + "\n")
				}
				for _, d := range plan.Plan(w.want, w.m.Observed(w.want)).Networks {
					out.WriteString("=> " + decisionText(d) + "\n")
				}
				out.WriteString("\n")
			}
			compareGolden(t, name, out.String())
		})
	}
}

func compareGolden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("differs from %s (-want +got), see -update:\n%s", path, diff)
	}
}
