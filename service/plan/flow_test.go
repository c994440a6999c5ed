package plan_test

import (
	"net/netip"
	"testing"

	"gangway/service/plan"
	"gangway/service/vnet"
)

func TestStaleness(t *testing.T) {
	const guest = "192.168.231.7"
	flow := func(source, destination, translated string) vnet.Flow {
		return vnet.Flow{Protocol: 6, Source: ip(source), Destination: ip(destination), Translated: ip(translated)}
	}
	onEth0 := func(w *world) {
		start(w)
		w.m.Plug(eth0)
		w.m.Plug(wlan0)
		w.network("other", map[string]any{"ipv4-subnet": "192.168.77.0/24"})
	}
	offline := func(w *world) {
		onEth0(w)
		w.m.SetCarrier("eth0", false)
		w.m.SetCarrier("wlan0", false)
	}
	split := func(w *world) {
		onEth0(w)
		d := tun0
		d.Default, d.Routes = false, []netip.Prefix{pfx("10.200.0.0/16")}
		w.m.Plug(d)
	}
	tests := []struct {
		name  string
		world func(*world)
		flow  vnet.Flow
		stale bool
	}{
		{"by the uplink, its address", onEth0, flow(guest, "203.0.113.9", "10.1.0.5"), false},
		{"by the uplink, the other uplink's address", onEth0, flow(guest, "203.0.113.9", "10.2.0.7"), true},
		{"by the uplink, an address that nobody has any more", onEth0, flow(guest, "203.0.113.9", "10.9.0.5"), true},
		{"by the uplink, not translated", onEth0, flow(guest, "203.0.113.9", guest), true},
		{"the other uplink's LAN, by main's specific route", onEth0, flow(guest, "10.2.0.50", "10.2.0.7"), false},
		{"the other uplink's LAN, with the uplink's address", onEth0, flow(guest, "10.2.0.50", "10.1.0.5"), true},
		{"DNS to the bridge", onEth0, flow(guest, "192.168.231.1", guest), false},
		{"to the host's address on the uplink", onEth0, flow(guest, "10.1.0.5", guest), false},
		{"to a neighbour", onEth0, flow(guest, "192.168.231.8", guest), false},
		{"to the other network", onEth0, flow(guest, "192.168.77.8", guest), false},
		{"multicast", onEth0, flow(guest, "239.255.255.250", guest), false},
		{"the host's own", onEth0, flow("10.1.0.5", "203.0.113.9", "10.1.0.5"), false},
		{"somebody else's guest's", onEth0, flow("192.168.122.7", "203.0.113.9", "10.9.0.5"), false},
		{"offline, the old address", offline, flow(guest, "203.0.113.9", "10.1.0.5"), false},
		{"offline, an address that nobody has", offline, flow(guest, "203.0.113.9", "10.9.0.5"), false},
		{"split tunnel, its address", split, flow(guest, "10.200.1.1", "10.3.0.2"), false},
		{"split tunnel, the uplink's address of before", split, flow(guest, "10.200.1.1", "10.1.0.5"), true},
		{"past the split tunnel", split, flow(guest, "203.0.113.9", "10.1.0.5"), false},
		{"full tunnel, the uplink's address", func(w *world) { onEth0(w); w.m.Plug(tun0) }, flow(guest, "203.0.113.9", "10.1.0.5"), true},
		{"full tunnel, its address", func(w *world) { onEth0(w); w.m.Plug(tun0) }, flow(guest, "203.0.113.9", "10.3.0.2"), false},
		{"routed, as it should be", func(w *world) { onEth0(w); w.network("default", map[string]any{"ipv4-method": "routed"}) },
			flow(guest, "203.0.113.9", guest), false},
		{"routed, still translated", func(w *world) { onEth0(w); w.network("default", map[string]any{"ipv4-method": "routed"}) },
			flow(guest, "203.0.113.9", "10.1.0.5"), true},
		{"isolated since", func(w *world) { onEth0(w); w.network("default", map[string]any{"ipv4-method": "isolated"}) },
			flow(guest, "203.0.113.9", "10.1.0.5"), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld()
			test.world(w)
			w.mustConverge(t)
			w.m.AddFlow(test.flow)
			if _, err := w.converge(true); err != nil {
				t.Fatal(err)
			}
			if gone := len(w.m.Flows()) == 0; gone != test.stale {
				t.Errorf("flow %+v: gone %v, want %v", test.flow, gone, test.stale)
			}
		})
	}
}

// Flows are looked at when the way out changes, not in every pass: that costs a dump.
func TestFlowsAreLookedAtOnChange(t *testing.T) {
	w := newWorld()
	start(w)
	w.m.Plug(eth0)
	w.mustConverge(t)
	steps := []struct {
		name string
		do   func()
		want bool
	}{
		{"nothing", func() {}, false},
		{"worse uplink", func() { w.m.Plug(wlan0) }, true}, // its LAN may have been reached by eth0
		{"chains flushed", func() { w.m.FlushChains() }, false},
		{"server ended", func() { w.m.StopServer("default") }, false},
		{"switch", func() { w.m.SetCarrier("eth0", false) }, true},
		{"offline", func() { w.m.SetCarrier("wlan0", false) }, false},
	}
	for _, s := range steps {
		s.do()
		r, err := w.pass(false)
		if err != nil {
			t.Fatal(err)
		}
		flushed := false
		for _, op := range r.Ops {
			_, is := op.(plan.FlushFlows)
			flushed = flushed || is
		}
		if flushed != s.want {
			t.Errorf("%s: flows looked at %v, want %v", s.name, flushed, s.want)
		}
	}
}
