package system_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gangway/test/lab"
)

// clashing is a second site whose LAN is the guests' subnet, and whose router has the bridge's address.
func clashing() []lab.SiteOptions {
	sites := lab.DefaultSites()
	sites[1].IPv4 = netip.MustParsePrefix("192.168.231.0/24")
	sites[1].Unplugged = true
	return sites
}

// dockInto plugs the site in and returns when the host has its address there.
func (w *world) dockInto(site string) {
	w.t.Helper()
	s := w.Site(site)
	w.must(s.Plug())
	w.run("ip", "link", "set", s.Uplink, "up")
	_, err := w.Laptop.WaitAddress(w.soon(), s.Uplink, s.Options.IPv4)
	w.must(err)
}

// reachesRouter fails if the host loses its site's router, from now on for some time.
func (w *world) reachesRouter(site string) {
	w.t.Helper()
	s := w.Site(site)
	w.eventually("the host reaches the router of site "+site, func() error { return w.pings(w.Laptop, s.RouterIPv4) })
	p, err := w.Laptop.ProbeDNS(w.ctx, s.DNS(), "site.example", lab.ProbeOptions{})
	w.must(err)
	for range 50 { // answers, each sent after the one before it came
		_, err := p.WaitSuccess(w.soon(), time.Now())
		w.must(err)
	}
	// As many as 80 % were lost with a bridge in the way. A packet or two may be on any loaded machine.
	if r := p.Finish(); r.Lost()*10 > len(r.Samples) {
		w.t.Errorf("the host reaches its own router badly: %s", r)
	}
}

func TestClashRenumbers(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{Sites: clashing()})
	g, old := w.guest("one", w.network)
	w.reachesBy(g.Host, "a")
	if old.Router.String() != "192.168.231.1" {
		t.Fatalf("the guest's router is %s", old.Router)
	}
	m := w.watch()
	w.dockInto("b")
	w.reachesRouter("b")
	s := m.await("Network.Renumbered", 1)[0]
	fresh := netip.MustParsePrefix(w.text(w.network, "Subnet"))
	if s.Body[0] != "192.168.231.0/24" || s.Body[1] != fresh.String() || fresh.Overlaps(w.Site("b").Options.IPv4) || fresh.Overlaps(w.Site("a").Options.IPv4) {
		t.Errorf("Renumbered %v, the subnet is %s", s.Body, fresh)
	}
	// The guest comes to its new address by itself.
	l, err := g.WaitLease(w.soon(), fresh)
	w.must(err)
	w.reachesBy(g.Host, "b")
	w.resolves(g.Host, "b")
	if l.Router != fresh.Addr().Next() {
		t.Errorf("the new router is %s", l.Router)
	}
	w.waitProperty(w.network, "State", "active")
	w.waitProperty(w.network, "LeaseCount", uint32(1))
	m.agrees()
	// Not back again when the cause is gone.
	w.must(w.Site("b").Unplug())
	w.reachesBy(g.Host, "a")
	w.must(w.NM.WaitPrimary(w.soon(), "wlan0"))
	w.waitProperty(root, "State", "online")
	if got := w.text(w.network, "Subnet"); got != fresh.String() || len(m.named("Network.Renumbered")) != 1 {
		t.Errorf("the subnet is %s, renumbered %d times", got, len(m.named("Network.Renumbered")))
	}
	w.noSpoofed()
}

func TestClashReports(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{Sites: clashing()})
	w.call(w.network, "Network.Update", dict("on-clash", "report"))
	g, _ := w.guest("one", w.network)
	other := w.create("other", options{})
	h, _ := w.guest("two", other)
	w.reachesBy(g.Host, "a")
	w.dockInto("b")
	w.reachesRouter("b")
	w.waitProperty(w.network, "State", "degraded")
	reason := w.text(w.network, "StateReason")
	if !strings.Contains(reason, "192.168.231.0/24") || !strings.Contains(reason, "eth0") || !strings.Contains(reason, "192.168.231.") {
		t.Errorf("the reason does not name both sides: %q", reason)
	}
	if got := w.text(w.network, "Subnet") + w.text(w.network, "Address"); got != "" {
		t.Errorf("it still shows %q", got)
	}
	w.reachesBy(h.Host, "b") // another network goes on
	// The cause goes, the network is as it was, and so is its guest, with its old address.
	w.must(w.Site("b").Unplug())
	w.waitProperty(w.network, "State", "active")
	w.waitProperty(w.network, "Subnet", "192.168.231.0/24")
	w.reachesBy(g.Host, "a")
	w.noSpoofed()
}

// TestClashOfFixedSubnet uses another subnet meanwhile, and returns.
func TestClashOfFixedSubnet(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{Sites: clashing()})
	w.call(w.network, "Network.Update", dict("ipv4-subnet", "192.168.231.0/24"))
	g, _ := w.guest("one", w.network)
	m := w.watch()
	w.dockInto("b")
	w.reachesRouter("b")
	m.await("Network.Renumbered", 1)
	w.waitProperty(w.network, "State", "degraded")
	meanwhile := netip.MustParsePrefix(w.text(w.network, "Subnet"))
	if reason := w.text(w.network, "StateReason"); !strings.Contains(reason, "192.168.231.0/24 clashes with") || !strings.Contains(reason, meanwhile.String()) {
		t.Errorf("the reason is %q", reason)
	}
	_, err := g.WaitLease(w.soon(), meanwhile)
	w.must(err)
	w.reachesBy(g.Host, "b")
	w.must(w.Site("b").Unplug())
	w.waitProperty(w.network, "State", "active")
	w.waitProperty(w.network, "Subnet", "192.168.231.0/24")
	_, err = g.WaitLease(w.soon(), netip.MustParsePrefix("192.168.231.0/24"))
	w.must(err)
	w.reachesBy(g.Host, "a")
	// A subnet that is in use already is refused from the beginning.
	name, message := w.fault(w.bus, root, "Manager.CreateNetwork", "x", dict("ipv4-subnet", "192.168.10.0/25"))
	if name != "SubnetConflict" || !strings.Contains(message, "wlan0") {
		t.Errorf("a subnet of the uplink's: %s", fmt.Sprint(name, ": ", message))
	}
	w.noSpoofed()
}
