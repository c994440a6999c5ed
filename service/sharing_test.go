package service_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"gangway/service/servicetest"
	"gangway/service/vnet"
)

// Two uplinks that are bridges, each with a router.
var (
	br0 = servicetest.Dock{Name: "br0", Kind: vnet.BridgeKind, Address: netip.MustParsePrefix("10.5.0.5/24"), Gateway: netip.MustParseAddr("10.5.0.1"),
		Default: true, Metric: 50, UUID: "uuid-br0"}
	br1 = servicetest.Dock{Name: "br1", Kind: vnet.BridgeKind, Address: netip.MustParsePrefix("10.6.0.5/24"), Gateway: netip.MustParseAddr("10.6.0.1"),
		Default: true, Metric: 40, UUID: "uuid-br1"}
	routerA = vnet.Router{Address: netip.MustParseAddr("fe80::a"), MAC: "02:00:00:00:0a:01", Default: true, Prefixes: []netip.Prefix{netip.MustParsePrefix("2001:db8:a::/64")}}
	routerB = vnet.Router{Address: netip.MustParseAddr("fe80::b"), MAC: "02:00:00:00:0b:01", Default: true, Prefixes: []netip.Prefix{netip.MustParsePrefix("2001:db8:b::/64")}}
)

func TestSwitchedTellsOfIPv6(t *testing.T) {
	run(t, func(b *bench) {
		b.create("lab", nil)
		b.m.SetRouters("br0", true, routerA)
		b.m.SetRouters("br1", true, routerB)
		b.m.Plug(br0)
		b.settle()
		n := b.network("lab")
		if n.IPv6State != "bridge" || !slices.Equal(n.IPv6Prefixes, routerA.Prefixes) {
			t.Fatalf("IPv6 %s %v: %s", n.IPv6State, n.IPv6Prefixes, n.IPv6Reason)
		}
		b.m.Plug(br1)
		b.settle()
		b.m.Unplug("br0")
		b.settle()
		b.m.Unplug("br1")
		b.settle()
		list := switches(b.events)
		want := []struct{ to, announced, withdrawn string }{
			{"br0", "[2001:db8:a::/64]", "[]"}, {"br1", "[2001:db8:b::/64]", "[2001:db8:a::/64]"}, {"eth0", "[]", "[2001:db8:b::/64]"}}
		if len(list) != len(want) {
			t.Fatalf("%d switches, want %d: %+v", len(list), len(want), list)
		}
		for i, w := range want {
			got := list[i]
			if got.To != w.to || fmt.Sprint(got.Announced) != w.announced || fmt.Sprint(got.Withdrawn) != w.withdrawn {
				t.Errorf("switch %d to %s announced %v, withdrew %v; want %+v", i, got.To, got.Announced, got.Withdrawn, w)
			}
			if got.IPv6Done < got.Detected {
				t.Errorf("switch %d: IPv6 done at %v, detected at %v", i, got.IPv6Done, got.Detected)
			}
		}
	})
}

func TestSetSharing(t *testing.T) {
	run(t, func(b *bench) {
		b.create("lab", nil)
		office := eth0
		office.UUID = "uuid-office"
		b.m.Plug(office)
		b.m.SetRouters("eth0", true, routerA)
		b.settle()
		if n := b.network("lab"); n.IPv6State != "link-local" {
			t.Fatalf("IPv6 is %s before sharing", n.IPv6State)
		}
		for _, step := range []struct{ mode, state string }{{"bridge", "bridge"}, {"bridge", "bridge"}, {"never", "link-local"}, {"never", "link-local"},
			{"bridge", "bridge"}, {"auto", "link-local"}, {"auto", "link-local"}} {
			if err := b.svc.SetSharing(ctx, "eth0", step.mode); err != nil {
				t.Fatalf("%s: %v", step.mode, err)
			}
			u, _ := b.svc.Snapshot().Uplink("eth0")
			if u.Sharing != step.mode || (u.SharedBridge != "") != (step.mode == "bridge") {
				t.Errorf("after SetSharing(%s), sharing is %s by %q", step.mode, u.Sharing, u.SharedBridge)
			}
			b.settle()
			if n := b.network("lab"); n.IPv6State != step.state {
				t.Errorf("after SetSharing(%s), IPv6 is %s: %s", step.mode, n.IPv6State, n.IPv6Reason)
			}
		}
	})
}

// What is said for a connection holds in the next process, and for the connection, not the interface.
func TestNeverIsTheConnections(t *testing.T) {
	run(t, func(b *bench) {
		b.create("lab", nil)
		b.m.SetRouters("br0", true, routerA)
		b.m.Plug(br0)
		b.settle()
		if err := b.svc.SetSharing(ctx, "br0", "never"); err != nil {
			t.Fatal(err)
		}
		b.end()
		b.begin()
		b.settle()
		if n := b.network("lab"); n.IPv6State != "link-local" || n.IPv6Reason != "br0 is set never to be shared" {
			t.Errorf("IPv6 is %s: %s", n.IPv6State, n.IPv6Reason)
		}
		other := br0
		other.UUID = "uuid-other"
		b.m.Plug(other)
		b.settle()
		if n := b.network("lab"); n.IPv6State != "bridge" {
			t.Errorf("IPv6 is %s on another connection: %s", n.IPv6State, n.IPv6Reason)
		}
	})
}

func TestSetSharingRefuses(t *testing.T) {
	run(t, func(b *bench) {
		b.m.Plug(servicetest.Dock{Name: "wlan0", Kind: vnet.WiFi, Address: netip.MustParsePrefix("10.2.0.7/24"), Gateway: netip.MustParseAddr("10.2.0.1"),
			Default: true, Metric: 600})
		b.settle()
		before := b.m.Text()
		b.wantKind(b.svc.SetSharing(ctx, "wlan1", "bridge"), vnet.NoSuchUplink)
		b.wantKind(b.svc.SetSharing(ctx, "wlan0", "bridge"), vnet.NotSupported)
		b.wantKind(b.svc.SetSharing(ctx, "wlan0", "never"), vnet.NotSupported) // without a connection there is nothing to keep it by
		b.settle()
		if after := b.m.Text(); after != before {
			t.Errorf("what was refused changed\n%s\nto\n%s", before, after)
		}
	})
}
