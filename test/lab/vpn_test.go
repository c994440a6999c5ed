package lab

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// TestVPN draws everything into a tunnel in all the ways that there are, and counts what passes it by.
func TestVPN(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	l := Start(t, Options{NoPolkit: true, Sites: DefaultSites()[1:]})
	b := l.Site("b")
	if _, _, err := b.WaitUplink(ctx); err != nil {
		t.Fatal(err)
	}
	v4, v6 := pfx("10.99.0.2/24"), pfx("fd00:99::2/64")
	for _, c := range []VPNOptions{
		{Name: "tun0", IPv4: v4, IPv6: v6}, {Name: "tun1", IPv4: v4, IPv6: v6, Style: VPNHalves, MTU: 1400},
		{Name: "wg0", IPv4: pfx("10.99.0.2/32"), IPv6: pfx("fd00:99::2/128"), Style: VPNRules}, {Name: "tun2", IPv4: v4, Style: VPNHalves}, {Name: "wg1", IPv6: v6, Style: VPNRules},
	} {
		v, err := l.StartVPN(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		checkVPN(t, l, v)
		if err := v.Close(); err != nil {
			t.Error(err)
		}
		if err := v.Close(); err != nil {
			t.Error("closing again:", err)
		}
		if _, err := l.Laptop.nl.LinkByName(c.Name); err == nil {
			t.Errorf("%s outlives its VPN", c.Name)
		}
		seenAs(t, l, b.Options.IPv4, b.Options.IPv6)
		if rules, err := l.Laptop.nl.RuleList(netlink.FAMILY_ALL); err != nil || slices.ContainsFunc(rules, func(r netlink.Rule) bool { return r.Table == vpnTable || r.SuppressPrefixlen == 0 }) {
			t.Errorf("rules left by %s: %v, %v", c.Name, rules, err)
		}
	}
	for _, bad := range []VPNOptions{{}, {Name: "tun0", Style: "magic"}} {
		if v, err := l.StartVPN(ctx, bad); err == nil {
			t.Errorf("VPN of %+v: %+v", bad, v)
		}
	}
}

// seenAs checks by which addresses the internet sees the laptop.
func seenAs(t *testing.T, l *Lab, v4, v6 netip.Prefix) {
	t.Helper()
	ctx := testContext(t)
	for echo, want := range map[netip.AddrPort]netip.Prefix{EchoIPv4: v4, EchoIPv6: v6} {
		if seen, err := l.Laptop.Reach(ctx, echo); err != nil || !want.Contains(seen.Addr()) {
			t.Errorf("the internet sees %v, %v, want %s", seen, err, want)
		}
	}
}

func checkVPN(t *testing.T, l *Lab, v *VPN) {
	t.Helper()
	ctx := testContext(t)
	b, name := l.Site("b"), v.Options.Name
	seenAs(t, l, b.Options.IPv4, b.Options.IPv6) // it is there, but nobody's way
	plain, err := l.Cable("eth0").Capture(ctx)
	if err != nil {
		t.Fatal(err)
	}
	tunnelled, err := l.Laptop.Capture(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	up, err := v.Up()
	if err != nil || up.Before(begun) || up.After(time.Now()) {
		t.Fatalf("%s up at %v, %v", name, up.Sub(begun), err)
	}
	if _, err := v.Up(); err == nil {
		t.Errorf("%s is up twice", name)
	}
	want4, want6 := b.Options.IPv4, b.Options.IPv6
	in := map[netip.Prefix]bool{} // destinations that must be in the tunnel alone
	if v.Options.IPv4.IsValid() {
		want4 = netip.PrefixFrom(v.Outside4, 32)
		in[netip.PrefixFrom(InternetIPv4, 32)] = true
	}
	if v.Options.IPv6.IsValid() {
		want6 = netip.PrefixFrom(v.Outside6, 128)
		in[netip.PrefixFrom(InternetIPv6, 128)] = true
	}
	seenAs(t, l, want4, want6)
	for to := range in {
		if _, err := tunnelled.Wait(ctx, All(Outgoing, DstIn(to), After(begun))); err != nil {
			t.Errorf("no packet to %s in %s: %v", to, name, err)
		}
		if n := tunnelled.Count(DstIn(to), Not(After(begun))); n > 0 {
			t.Errorf("%d packets to %s in %s before it was up", n, to, name)
		}
	}
	// The site's neighbours stay neighbours.
	if routes, err := l.Laptop.nl.RouteGet(b.RouterIPv4.AsSlice()); err != nil || linkName(l, routes[0].LinkIndex) != "eth0" {
		t.Errorf("the site's router is reached by %v, %v", routes, err)
	}
	if link, err := l.Laptop.nl.LinkByName(name); err != nil || link.Attrs().MTU != v.Options.MTU || v.Options.MTU < 1280 {
		t.Errorf("%s has MTU %d, %v", name, link.Attrs().MTU, err)
	}
	still := time.Now()
	down, err := v.Down()
	if err != nil || down.Before(up) {
		t.Errorf("%s down at %v, %v", name, down.Sub(begun), err)
	}
	seenAs(t, l, b.Options.IPv4, b.Options.IPv6)
	for to := range in {
		// What is captured is in order: when this is there, all before it is.
		if _, err := plain.Wait(ctx, All(Incoming, DstIn(to), After(down))); err != nil {
			t.Errorf("no packet to %s beside %s, which is down: %v", to, name, err)
		}
		if n := plain.Count(Incoming, DstIn(to), After(up), Not(After(still))); n > 0 {
			t.Errorf("%d packets to %s passed %s by", n, to, name)
		}
		if n := tunnelled.Count(Outgoing, DstIn(to), After(down)); n > 0 {
			t.Errorf("%d packets to %s in %s which is down", n, to, name)
		}
	}
	if _, err := v.Up(); err != nil { // what Close has to take away
		t.Error(err)
	}
}

func linkName(l *Lab, index int) string {
	link, err := l.Laptop.nl.LinkByIndex(index)
	if err != nil {
		return err.Error()
	}
	return link.Attrs().Name
}
