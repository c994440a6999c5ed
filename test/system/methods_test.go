package system_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"gangway/test/lab"
)

// netPath escapes a network's name that has a hyphen at most.
func netPath(name string) godbus.ObjectPath {
	return godbus.ObjectPath(strings.ReplaceAll(name, "-", "_2d"))
}

func TestMethods(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{})
	guest, l := w.guest("nat", w.network)
	routed, isolated, off := w.create("routed", dict("ipv4-method", "routed", "ipv4-subnet", "192.168.201.0/24")),
		w.create("isolated", dict("ipv4-method", "isolated")), w.create("off-line", dict("ipv4-method", "off"))
	r, lr := w.guest("routed", routed)
	i, li := w.guest("isolated", isolated)
	i2, li2 := w.guest("isolated2", isolated)
	o := w.attached("off", off)
	for path, state := range map[godbus.ObjectPath]string{w.network: "nat", routed: "routed", isolated: "isolated", off: "off"} {
		w.waitProperty(path, "IPv4State", state)
	}
	if off != root+"/network/off_2dline" || w.text(off, "Subnet") != "" || w.text(off, "Address") != "" {
		t.Errorf("%s has %q", off, w.text(off, "Subnet"))
	}

	// Routed: the source stays, and who knows the way reaches the guest.
	b := w.Site("b")
	b4, _, err := b.WaitUplink(w.soon())
	w.must(err)
	_, err = b.Router.Run(w.ctx, "ip", "route", "add", "192.168.201.0/24", "via", b4.String())
	w.must(err)
	// Where guests are routed, the site has agreed to their sources.
	_, err = b.Router.Run(w.ctx, "nft", "insert", "rule", "inet", "bcp38", "ingress", "ip", "saddr", "192.168.201.0/24", "accept")
	w.must(err)
	w.eventually("the router reaches the routed guest", func() error { return w.pings(b.Router, lr.Address.Addr()) })
	w.eventually("the routed guest reaches the router", func() error { return w.pings(r.Host, b.RouterIPv4) })
	c, err := b.Router.Capture(w.ctx, "lan0")
	w.must(err)
	w.must(w.pings(r.Host, b.RouterIPv4))
	if _, err := c.Wait(w.soon(), lab.SrcIn(netip.MustParsePrefix("192.168.201.0/24"))); err != nil {
		t.Error("a routed guest's packets are translated:", err)
	}

	// Isolated: its own network and the host's services, no more; no default route at all.
	w.must(w.pings(i.Host, li2.Address.Addr()))
	w.must(w.pings(i2.Host, w.subnet(isolated).Addr().Next()))
	if li.Router.IsValid() {
		t.Errorf("an isolated guest is told the router %s", li.Router)
	}
	_, err = i.Run(w.ctx, "ip", "route", "add", "default", "via", w.subnet(isolated).Addr().Next().String())
	w.must(err)
	w.cannotReach(i.Host, lab.EchoIPv4)

	// Off: what is on the bridge talks by itself.
	_, err = o.Run(w.ctx, "ip", "addr", "add", "10.1.1.1/24", "dev", "eth0")
	w.must(err)
	w.cannotReach(o.Host, lab.EchoIPv4)

	// Two networks don't reach each other, whichever their methods; nor do guests reach the other's gateway's DNS.
	for _, pair := range []struct {
		from *lab.Guest
		to   netip.Addr
	}{{guest, lr.Address.Addr()}, {r, l.Address.Addr()}, {i, l.Address.Addr()}, {guest, li.Address.Addr()}, {r, li.Address.Addr()}} {
		if err := w.pings(pair.from.Host, pair.to); err == nil {
			t.Errorf("%s reaches %s of another network", pair.from.Name, pair.to)
		}
	}
	if a, err := guest.Query(w.ctx, netip.AddrPortFrom(lr.Router, 53), "site.example", lab.TypeA); err == nil {
		t.Errorf("a guest is answered by the DNS of another network: %+v", a)
	}
	// Nor does the outside reach a NAT guest.
	_, err = b.Router.Run(w.ctx, "ip", "route", "add", w.subnet(w.network).String(), "via", b4.String())
	w.must(err)
	if err := w.pings(b.Router, l.Address.Addr()); err == nil {
		t.Error("the router reaches a guest behind NAT")
	}
	w.must(c.Close())
	w.noSpoofed()
}

func TestPinnedAndWithoutUplink(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{})
	pinned, none := w.create("pinned", dict("uplink", "wlan0")), w.create("none", dict("uplink", "none"))
	p, _ := w.guest("pinned", pinned)
	n, _ := w.guest("none", none)
	g, _ := w.guest("one", w.network)
	w.reachesBy(g.Host, "b")
	w.reachesBy(p.Host, "a")
	w.refusedAtOnce(n)
	w.waitProperty(none, "IPv4State", "offline")
	if reason := w.text(none, "IPv4Reason"); !strings.Contains(reason, "no uplink") {
		t.Errorf("the reason is %q", reason)
	}
	// Its queries go where its packets do.
	gateway := netip.AddrPortFrom(w.subnet(pinned).Addr().Next(), 53)
	if a, err := p.Query(w.ctx, gateway, "site.example", lab.TypeTXT); err != nil || !slices.Equal(a.Texts, []string{"a"}) {
		t.Errorf("the pinned guest's query was answered %+v (%v)", a, err)
	}
	// Away from its uplink it is offline, with another one there; and back.
	w.must(w.Site("a").Unplug())
	w.waitProperty(pinned, "IPv4State", "offline")
	if reason := w.text(pinned, "IPv4Reason"); !strings.Contains(reason, "wlan0") {
		t.Errorf("the reason is %q", reason)
	}
	w.refusedAtOnce(p)
	w.reachesBy(g.Host, "b")
	w.must(w.Site("a").Plug())
	w.reachesBy(p.Host, "a")
	w.waitProperty(pinned, "IPv4State", "nat")
	// The pin taken off, it goes with the others.
	w.call(pinned, "Network.Update", dict("uplink", "auto"))
	w.reachesBy(p.Host, "b")
	w.call(none, "Network.Update", dict("uplink", "wlan0"))
	w.reachesBy(n.Host, "a")
	w.noSpoofed()
}

func TestUpdateLive(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{})
	g, l := w.guest("one", w.network)
	h, lh := w.guest("two", w.network)
	w.reachesBy(g.Host, "b")
	m := w.watch()
	flow, err := g.ProbeFlow(w.ctx, lab.EchoIPv4, lab.ProbeOptions{})
	w.must(err)

	w.call(w.network, "Network.Update", dict("domain", "lab.internal", "mtu", uint32(1400), "isolate-ports", false))
	w.names(g.Host, "gateway.lab.internal", l.Router)
	if out := w.run("ip", "link", "show", "gway0"); !strings.Contains(out, "mtu 1400") {
		t.Errorf("the bridge is %s", out)
	}
	reserved := w.subnet(w.network).Addr()
	for range 77 {
		reserved = reserved.Next()
	}
	w.call(w.network, "Network.Update", dict("dhcp-hosts", []options{dict("mac", g.MAC.String(), "address", reserved.String(), "hostname", "build")}))
	w.names(h.Host, "build.lab.internal", reserved)
	_, err = flow.WaitSuccess(w.soon(), time.Now())
	w.must(err)
	if r := flow.Finish(); r.Lost() > 0 {
		t.Errorf("updates cost packets: %s", r)
	}
	w.must(g.Renew(w.soon()))
	w.eventually("the guest takes its reserved address", func() error {
		now, err := g.Lease()
		if err == nil && now.Address.Addr() != reserved {
			err = fmt.Errorf("it has %s", now.Address)
		}
		return err
	})
	w.reachesBy(g.Host, "b")

	w.must(w.pings(h.Host, reserved))
	w.call(w.network, "Network.Update", dict("isolate-ports", true))
	w.eventually("guests don't reach each other", func() error {
		if w.pings(g.Host, lh.Address.Addr()) == nil {
			return fmt.Errorf("they do")
		}
		return nil
	})
	w.reachesBy(h.Host, "b")
	w.call(w.network, "Network.Update", dict("isolate-ports", false))
	w.eventually("guests reach each other", func() error { return w.pings(g.Host, lh.Address.Addr()) })

	// A new subnet moves the guests by themselves.
	w.call(w.network, "Network.Update", dict("ipv4-subnet", "192.168.77.0/24", "dhcp-hosts", []options{}))
	for _, guest := range w.guests {
		_, err := guest.WaitLease(w.soon(), netip.MustParsePrefix("192.168.77.0/24"))
		w.must(err)
		w.reachesBy(guest.Host, "b")
	}
	if n := len(m.await("Network.Renumbered", 1)); n != 1 {
		t.Errorf("%d renumberings", n)
	}
	// A new bridge takes the ports with it.
	w.call(w.network, "Network.Update", dict("bridge", "gwayX"))
	w.reachesBy(g.Host, "b")
	if got := w.text(w.network, "Bridge"); got != "gwayX" || w.links("gway0") {
		t.Errorf("the bridge is %s, gway0 is there: %v", got, w.links("gway0"))
	}
	w.settled()
	m.agrees()
	w.noSpoofed()
}

// links tells whether the laptop has the interface.
func (w *world) links(ifname string) bool {
	_, err := w.Laptop.Run(w.ctx, "ip", "link", "show", ifname)
	return err == nil
}
