package system_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"gangway/test/lab"
)

// wifiAndDesk are an access point and a plain Ethernet, which is preferred, with radvd; neither can be bridged to as it is.
func wifiAndDesk() []lab.SiteOptions {
	sites := []lab.SiteOptions{
		{Name: "a", Uplink: "wlan0", WiFi: true, ReflectMulticast: true, Metric: 200, IPv4: netip.MustParsePrefix("192.168.10.0/24"), IPv6: prefixA},
		{Name: "b", Uplink: "eth0", Metric: 100, IPv4: netip.MustParsePrefix("10.20.0.0/24"), IPv6: prefixB},
	}
	for i := range sites {
		ra := lab.DefaultRA(sites[i].IPv6)
		sites[i].RA = &ra
	}
	return sites
}

// onWiFi is a laptop on the access point, the desk's cable unplugged, with guests' IPv6 proxied.
func onWiFi(t *testing.T, o lab.Options) *world {
	t.Helper()
	if o.Sites == nil {
		o.Sites = wifiAndDesk()
		o.Sites[1].Unplugged = true
	}
	w := start(t, o)
	w.waitProperty(w.network, "IPv6State", "proxy")
	return w
}

// self is the bridge as its guests' router.
func (w *world) self() netip.Addr {
	w.t.Helper()
	addr, err := w.Laptop.WaitAddress(w.soon(), w.text(w.network, "Bridge"), linkLAN)
	w.must(err)
	return addr
}

// noViolations fails if the access point had to refuse a frame.
func (w *world) noViolations(site string) {
	w.t.Helper()
	refused, err := w.Site(site).Refused(w.ctx)
	w.must(err)
	if len(refused) > 0 {
		w.t.Errorf("the access point refused frames that weren't the station's: %v", refused)
	}
}

// pingable waits until a ping is answered.
func (w *world) pingable(from *lab.Host, to netip.Addr) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("%s pings %s", from.Name, to), func() error {
		ctx, cancel := w.short()
		defer cancel()
		return from.Ping(ctx, to)
	})
}

// The way through on Wi-Fi: guests have addresses of the link, which knows one MAC address; then docked in, and back.
func TestProxiedIPv6(t *testing.T) {
	t.Parallel()
	w := onWiFi(t, lab.Options{})
	g, watch, addrA := w.guest6("vm1", prefixA)
	other, _, otherA := w.guest6("vm2", prefixA)
	onA, onB := w.cable("wlan0"), w.cable("eth0")
	if got := w.get(w.network, "IPv6Prefixes"); !slices.Equal(got.([]string), []string{prefixA.String()}) {
		t.Errorf("IPv6Prefixes is %v", got)
	}
	self := w.self()
	_, err := watch.WaitRouter(w.soon(), self)
	w.must(err)
	st, err := w.Site("a").AddStation(w.ctx, "lan", lab.StationOptions{})
	w.must(err)
	stA, err := st.WaitIPv6(w.soon(), prefixA)
	w.must(err)
	hostA, err := w.Laptop.WaitAddress(w.soon(), "wlan0", prefixA)
	w.must(err)
	w.must(waitSeen(w, g, prefixA))
	seen, err := g.Reach(w.soon(), lab.EchoIPv6)
	w.must(err)
	if seen.Addr() != addrA {
		t.Errorf("the guest was seen as %s, want its own %s", seen, addrA)
	}
	for _, p := range []struct {
		from *lab.Host
		to   netip.Addr
	}{{g.Host, stA}, {st.Host, addrA}, {g.Host, hostA}, {w.Laptop, addrA}, {g.Host, otherA}, {other.Host, addrA}} {
		w.pingable(p.from, p.to)
	}

	// Docked in: one router, whose advertisement carries new and old.
	docked := time.Now()
	w.must(w.Site("b").Plug())
	w.waitUplink(w.network, "eth0")
	addrB, usable, err := watch.WaitAddress(w.soon(), prefixB)
	w.must(err)
	_, err = watch.WaitNoAddress(w.soon(), prefixA)
	w.must(err)
	t.Logf("docked in: new address usable after %v", usable.Sub(docked))
	w.must(waitSeen(w, g, prefixB))
	if at, was := watch.First(docked, func(s lab.IPv6State) bool { return !s.HasRouter(self) }); was {
		t.Errorf("the guest was without its router at %v, which is the same everywhere", at)
	}
	stB, err := w.Site("b").AddStation(w.ctx, "lan", lab.StationOptions{})
	w.must(err)
	_, err = stB.WaitIPv6(w.soon(), prefixB)
	w.must(err)
	w.pingable(stB.Host, addrB)

	// And back, by the cable that is pulled.
	w.must(w.Site("b").Unplug())
	_, _, err = watch.WaitAddress(w.soon(), prefixA)
	w.must(err)
	_, err = watch.WaitNoAddress(w.soon(), prefixB)
	w.must(err)
	w.must(waitSeen(w, g, prefixA))
	w.pingable(st.Host, addrA)

	w.noViolations("a")
	for _, c := range []*lab.Capture{onA, onB} {
		w.none(c, "from the guests' MAC addresses", lab.FromMAC(g.MAC))
		w.none(c, "from the guests' MAC addresses", lab.FromMAC(other.MAC))
		w.none(c, "advertisements sent by the laptop", lab.IsRA, lab.Outgoing)
	}
	w.none(onB, "packets of A's prefix on B", lab.Outgoing, func(f lab.Frame) bool { return prefixA.Contains(f.SrcIP()) && !lab.IsNS(f) && !lab.IsNA(f) })
}
