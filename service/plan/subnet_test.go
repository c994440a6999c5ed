package plan_test

import (
	"fmt"
	"net/netip"
	"testing"

	"gangway/service/plan"
	"gangway/service/servicetest"
	"gangway/service/vnet"
)

// subnetOf is the subnet that the network has after everything is at rest.
func (w *world) subnetOf(t *testing.T, name string) netip.Prefix {
	t.Helper()
	w.mustConverge(t)
	for _, d := range plan.Plan(w.want, w.m.Observed(w.want)).Networks {
		if d.Name == name {
			return d.Subnet
		}
	}
	t.Fatalf("no network %s", name)
	return netip.Prefix{}
}

// A fresh choice overlaps nothing that is, nothing that may come and nothing that once was.
func TestFreshSubnetAvoids(t *testing.T) {
	const first = "192.168.231.0/24" // what the default network takes when nothing is in the way
	route := func(dst string, table uint32) func(*world) {
		return func(w *world) {
			w.m.AddRoute(vnet.Route{Table: table, Dst: pfx(dst), Type: vnet.RouteUnicast, Protocol: 3}, "lo")
		}
	}
	tests := []struct {
		name  string
		world func(*world)
		moves bool
	}{
		{"nothing", func(*world) {}, false},
		{"an address", func(w *world) { w.m.AddAddress("lo", pfx("192.168.231.200/25")) }, true},
		{"a wider address", func(w *world) { w.m.AddAddress("lo", pfx("192.168.200.1/17")) }, true},
		{"an address next door", func(w *world) { w.m.AddAddress("lo", pfx("192.168.230.1/24")) }, false},
		{"a route in main", route("192.168.231.64/26", 254), true},
		{"a route in another table", route("192.168.231.64/26", 52), true},
		{"a host route", route("192.168.231.9/32", 52), true},
		{"a route to everything in two halves", both(route("0.0.0.0/1", 254), route("128.0.0.0/1", 254)), false},
		{"an unreachable route", func(w *world) {
			w.m.AddRoute(vnet.Route{Table: 254, Dst: pfx(first), Type: vnet.RouteUnreachable, Protocol: 3}, "")
		}, true},
		{"a DNS server", func(w *world) {
			d := eth0
			d.DNS = []netip.Addr{ip("192.168.231.53")}
			w.m.Plug(d)
		}, true},
		{"a DNS server for a domain", func(w *world) {
			w.m.SetHost(servicetest.HostDNS{Upstreams: []vnet.Upstream{{Address: ip("192.168.231.53"), Interface: "tun0", Domains: []string{"a"}}}})
		}, true},
		{"a router", func(w *world) { w.m.Plug(in(eth0, "10.1.0.5/32", "192.168.231.1")) }, true},
		{"a profile", func(w *world) {
			w.m.SetHost(servicetest.HostDNS{Reserved: []vnet.Reservation{{Prefix: pfx("192.168.231.0/28"), Owner: "profile"}}})
		}, true},
		{"an uplink of another day", func(w *world) { w.want.UplinkPrefixes = []netip.Prefix{pfx("192.168.128.0/17")} }, true},
		{"another network's fixed subnet", set("zulu", "ipv4-subnet", "192.168.231.0/25"), true},
		{"another network's memory", func(w *world) {
			w.network("zulu", nil)
			w.find("zulu").Remembered = pfx(first)
		}, true},
		{"a stopped network's memory", func(w *world) {
			w.network("zulu", nil)
			w.find("zulu").Remembered, w.find("zulu").Active = pfx(first), false
		}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld()
			start(w)
			test.world(w)
			got := w.subnetOf(t, "default")
			if moved := got != pfx(first); moved != test.moves || !got.IsValid() {
				t.Errorf("subnet %s, moved %v, want %v", got, moved, test.moves)
			}
		})
	}
}

// habits are the ranges that others take without asking, from their documentation.
var habits = []string{"172.16.0.0/12", "192.168.122.0/24", "192.168.123.0/24", "10.88.0.0/16", "10.89.0.0/16", "100.64.0.0/10",
	"10.42.0.0/16", "10.43.0.0/16", "10.96.0.0/12", "10.244.0.0/16", "192.168.178.0/24", "192.168.49.0/24", "192.168.0.0/24", "192.168.1.0/24"}

func TestManyNetworks(t *testing.T) {
	w := newWorld()
	w.m.Plug(eth0)
	for i := range 200 {
		w.network(fmt.Sprintf("net%d", i), nil)
	}
	w.mustConverge(t)
	r := plan.Plan(w.want, w.m.Observed(w.want))
	for i, d := range r.Networks {
		if d.State != vnet.Active || d.Subnet.Bits() != 24 || !d.Subnet.Addr().IsPrivate() {
			t.Fatalf("%s: %s, subnet %s", d.Name, d.State, d.Subnet)
		}
		for _, h := range habits {
			if d.Subnet.Overlaps(pfx(h)) {
				t.Errorf("%s: subnet %s is in %s", d.Name, d.Subnet, h)
			}
		}
		for _, other := range r.Networks[:i] {
			if d.Subnet.Overlaps(other.Subnet) {
				t.Fatalf("%s and %s overlap: %s, %s", d.Name, other.Name, d.Subnet, other.Subnet)
			}
		}
	}
}

func TestSubnetChoiceIsStable(t *testing.T) {
	choose := func(name string) netip.Prefix {
		w := newWorld()
		w.network(name, nil)
		return w.subnetOf(t, name)
	}
	distinct := map[netip.Prefix]bool{}
	for _, name := range []string{"default", "build", "alpha", "beta", "gamma"} {
		p := choose(name)
		if again := choose(name); again != p {
			t.Errorf("%s: %s, then %s", name, p, again)
		}
		distinct[p] = true
	}
	if len(distinct) < 4 {
		t.Errorf("names hardly matter: %v", distinct)
	}
}

// A remembered subnet stays although a preferred one, or what was once in the way, is free.
func TestRememberedSubnetStays(t *testing.T) {
	w := newWorld()
	start(w)
	w.find("default").Remembered = pfx("172.20.5.0/24") // within a habit: good enough once chosen
	if got := w.subnetOf(t, "default"); got != pfx("172.20.5.0/24") {
		t.Errorf("subnet %s", got)
	}
}

// While a fixed subnet clashes, the one that is used meanwhile stays, too, though it isn't
// remembered: moving costs the guests their connections.
func TestMeanwhileSubnetStays(t *testing.T) {
	w := newWorld()
	w.network("default", map[string]any{"ipv4-subnet": "192.168.77.0/24"})
	w.m.SetHost(servicetest.HostDNS{Reserved: []vnet.Reservation{{Prefix: pfx("192.168.231.0/24"), Owner: "profile"}}})
	w.mustConverge(t)
	w.m.Plug(in(wlan0, "192.168.77.9/24", "192.168.77.1"))
	before := w.subnetOf(t, "default")
	w.m.SetHost(servicetest.HostDNS{})
	if after := w.subnetOf(t, "default"); after != before || before == pfx("192.168.77.0/24") {
		t.Errorf("subnet %s, then %s", before, after)
	}
}

// When everything else is taken, what is only expected is given up before the network is.
func TestSubnetWhenAllIsTaken(t *testing.T) {
	w := newWorld()
	start(w)
	w.want.UplinkPrefixes = []netip.Prefix{pfx("192.168.0.0/16"), pfx("10.0.0.0/8")}
	if got := w.subnetOf(t, "default"); got != pfx("192.168.231.0/24") {
		t.Errorf("all of it seen once: %s", got)
	}
	w = newWorld()
	start(w)
	w.m.AddAddress("lo", pfx("192.168.0.1/16"))
	w.m.AddAddress("lo", pfx("10.0.0.1/8"))
	if got := w.subnetOf(t, "default"); got.IsValid() {
		t.Errorf("all of it in use: %s", got)
	}
	d := plan.Plan(w.want, w.m.Observed(w.want)).Networks[0]
	if d.State != vnet.Degraded || d.IPv4State != "off" || d.Reason == "" {
		t.Errorf("decision %+v", d)
	}
}
