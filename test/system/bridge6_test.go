package system_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"gangway/test/lab"
)

var (
	prefixA = netip.MustParsePrefix("2001:db8:a::/64")
	prefixB = netip.MustParsePrefix("2001:db8:b::/64")
	linkLAN = netip.MustParsePrefix("fe80::/10")
)

// twoBridges are two sites with radvd, whose uplinks are bridges that the user made: b is preferred.
func twoBridges() []lab.SiteOptions {
	sites := []lab.SiteOptions{
		{Name: "a", Uplink: "eth1", Bridge: "br1", HeedCarrier: true, Metric: 200, IPv4: netip.MustParsePrefix("192.168.10.0/24"), IPv6: prefixA},
		{Name: "b", Uplink: "eth0", Bridge: "br0", HeedCarrier: true, Metric: 100, IPv4: netip.MustParsePrefix("10.20.0.0/24"), IPv6: prefixB},
	}
	for i := range sites {
		ra := lab.DefaultRA(sites[i].IPv6)
		sites[i].RA = &ra
	}
	return sites
}

// bridged is start, with guests' IPv6 bridged to the uplink.
func bridged(t *testing.T, o lab.Options) *world {
	t.Helper()
	if o.Sites == nil {
		o.Sites = twoBridges()
	}
	w := start(t, o)
	w.waitProperty(w.network, "IPv6State", "bridge")
	return w
}

// guest6 is a guest whose kernel autoconfigures, and what happens to it; it has an address of the prefix on return.
func (w *world) guest6(name string, within netip.Prefix) (*lab.Guest, *lab.Watch, netip.Addr) {
	w.t.Helper()
	g := w.attached(name, w.network)
	watch, err := g.WatchIPv6(w.ctx)
	w.must(err)
	w.t.Cleanup(func() { watch.Close() })
	addr, _, err := watch.WaitAddress(w.soon(), within)
	w.must(err)
	return g, watch, addr
}

// router is the link-local address of the site's router.
func (w *world) router(site string) netip.Addr {
	w.t.Helper()
	addr, err := w.Site(site).Router.WaitAddress(w.soon(), w.Site(site).IPv6Router().Interface, linkLAN)
	w.must(err)
	return addr
}

// cable is a capture of what the laptop sends and receives on the wire of an uplink.
func (w *world) cable(uplink string) *lab.Capture {
	w.t.Helper()
	c, err := w.Laptop.Capture(w.ctx, uplink)
	w.must(err)
	w.t.Cleanup(func() { c.Close() })
	return c
}

// none fails if the capture has such frames.
func (w *world) none(c *lab.Capture, what string, preds ...func(lab.Frame) bool) {
	w.t.Helper()
	if n := c.Count(preds...); n > 0 {
		var first lab.Frame
		for _, f := range c.Frames() {
			if lab.All(preds...)(f) {
				first = f
				break
			}
		}
		w.t.Errorf("%d frames: %s; the first at %v: % x", n, what, first.Time.Format("15:04:05.000"), first.Data)
	}
}

func ipv6(f lab.Frame) bool { return f.EtherType() == 0x86dd }

// The way through: guests are stations of the link, and move with the laptop.
func TestBridgedIPv6(t *testing.T) {
	t.Parallel()
	w := bridged(t, lab.Options{})
	g, watch, addrB := w.guest6("vm1", prefixB)
	w.lease(g, netip.Prefix{})
	onA, onB := w.cable("eth1"), w.cable("eth0")
	if got := w.get(w.network, "IPv6Prefixes"); !slices.Equal(got.([]string), []string{prefixB.String()}) {
		t.Errorf("IPv6Prefixes is %v", got)
	}
	routerA, routerB := w.router("a"), w.router("b")
	if got := w.get(uplinkPath("br0"), "Routers"); !slices.Equal(got.([]string), []string{routerB.String()}) {
		t.Errorf("Routers of br0 is %v, want %s", got, routerB)
	}
	st, err := w.Site("b").AddStation(w.ctx, "lan", lab.StationOptions{})
	w.must(err)
	stAddr, err := st.WaitIPv6(w.soon(), prefixB)
	w.must(err)
	w.must(g.Ping(w.soon(), stAddr))
	w.must(st.Ping(w.soon(), addrB))
	seen, err := g.Reach(w.soon(), lab.EchoIPv6)
	w.must(err)
	if seen.Addr() != addrB {
		t.Errorf("the guest was seen as %s, want its own %s", seen, addrB)
	}

	signals := w.watch()
	begun := time.Now()
	w.must(w.Site("b").Unplug())
	gone, err := watch.WaitNoRouter(w.soon(), routerB)
	w.must(err)
	came, err := watch.WaitRouter(w.soon(), routerA)
	w.must(err)
	addrA, usable, err := watch.WaitAddress(w.soon(), prefixA)
	w.must(err)
	t.Logf("unplug: old router gone %v, new one there %v, address usable %v", gone.Sub(begun), came.Sub(begun), usable.Sub(begun))
	seen, err = g.Reach(w.soon(), lab.EchoIPv6)
	w.must(err)
	if seen.Addr() != addrA {
		t.Errorf("the guest was seen as %s, want its new %s", seen, addrA)
	}
	w.waitProperty(w.network, "IPv6Prefixes", []string{prefixA.String()})
	sw := signals.await("Manager.Switched", 1)[0]
	report := sw.Body[2].(map[string]godbus.Variant)
	if got := fmt.Sprint(report["prefixes-withdrawn"].Value(), report["prefixes-announced"].Value()); got != fmt.Sprint([]string{prefixB.String()}, []string{prefixA.String()}) {
		t.Errorf("withdrawn and announced: %s", got)
	}

	// And back: both up, the primary changes.
	w.must(w.Site("b").Plug())
	_, _, err = watch.WaitAddress(w.soon(), prefixB)
	w.must(err)
	w.must(waitSeen(w, g, prefixB))
	for _, c := range []*lab.Capture{onA, onB} {
		w.none(c, "not IPv6, from the guest", lab.FromMAC(g.MAC), lab.Not(ipv6))
		w.none(c, "advertisements sent by the laptop", lab.IsRA, lab.Outgoing)
	}
	w.none(onB, "advertisements of A on B", lab.RAWith(prefixA))
	w.none(onA, "advertisements of B on A", lab.RAWith(prefixB))
	w.noHostIPv6OnBridge()
}

// waitSeen waits until the guest is seen by the internet with an address of the prefix.
func waitSeen(w *world, g *lab.Guest, within netip.Prefix) error {
	for {
		ctx, cancel := context.WithTimeout(w.soon(), 3*time.Second)
		seen, err := g.Reach(ctx, lab.EchoIPv6)
		cancel()
		if err == nil && within.Contains(seen.Addr()) {
			return nil
		}
		if w.ctx.Err() != nil {
			return fmt.Errorf("%s was seen as %v, not of %s: %w", g.Name, seen, within, err)
		}
	}
}

// noHostIPv6OnBridge fails if the host took an address or a route from its own virtual bridge.
func (w *world) noHostIPv6OnBridge() {
	w.t.Helper()
	addresses, err := w.Laptop.Addresses("gway0")
	w.must(err)
	for _, a := range addresses {
		if a.Addr().Is6() && !a.Addr().IsLinkLocalUnicast() {
			w.t.Errorf("the bridge has the address %s", a)
		}
	}
	for _, route := range lines(w.run("ip", "-6", "route", "show", "dev", "gway0")) {
		if route != "" && route[:4] != "fe80" {
			w.t.Errorf("the host has a route by its own bridge: %s", route)
		}
	}
}
