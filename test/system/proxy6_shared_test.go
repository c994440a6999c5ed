package system_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"gangway/test/lab"
)

// Shared while guests are proxied: the link's router knows them by the laptop's MAC address, and is told at once that they have one of
// their own. Left alone, it goes on using the laptop's for half a minute.
func TestSharedWhileProxied(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{Sites: twoCables(), NMConfDir: "../../data"})
	w.waitIPv6()
	w.waitProperty(w.network, "IPv6State", "proxy")
	g, watch, _ := w.guest6("vm1", prefixB)
	w.lease(g, netip.Prefix{})
	w.must(waitSeen(w, g, prefixB))
	for _, c := range []struct {
		mode string
		self bool
	}{{"bridge", false}, {"auto", true}, {"bridge", false}} {
		ifname, router := "eth0", w.router("b")
		if c.mode == "auto" {
			ifname = "gwb-eth0"
		}
		if c.self {
			router = w.self()
		}
		w.call(uplinkPath(ifname), "Uplink.SetSharing", c.mode)
		_, err := watch.WaitRouter(w.soon(), router)
		w.must(err)
		ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
		seen, err := g.Reach(ctx, lab.EchoIPv6)
		cancel()
		if err != nil || !prefixB.Contains(seen.Addr()) {
			t.Fatalf("after %s the guest was seen as %v: %v; the router's neighbours are\n%s", c.mode, seen, err, w.neighboursOf("b"))
		}
	}
}

// neighboursOf is the neighbour table of the site's router.
func (w *world) neighboursOf(site string) string {
	w.t.Helper()
	out, err := w.Site(site).Router.Run(w.ctx, "ip", "-6", "neigh")
	w.must(err)
	return out
}
