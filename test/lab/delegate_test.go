package lab

import (
	"net/netip"
	"slices"
	"testing"
)

// TestSingleAddress has hosts that must ask for their one address: NetworkManager does, who autoconfigures has none.
func TestSingleAddress(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	site := DefaultSites()[1]
	ra := ManagedRA(site.IPv6)
	site.RA, site.DHCPv6 = &ra, true
	l := Start(t, Options{NoPolkit: true, Sites: []SiteOptions{site}})
	b := l.Site("b")
	if _, _, err := b.WaitUplink(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Laptop.Reach(ctx, EchoIPv6); err != nil {
		t.Fatal(err)
	}
	s, err := l.Laptop.IPv6("eth0")
	global := s.Global()
	if err != nil || len(global) != 1 || global[0].Prefix.Bits() != 128 || !pfx("2001:db8:b::100/120").Contains(global[0].Prefix.Addr()) {
		t.Errorf("the laptop has %+v, %v, want a single /128", global, err)
	}
	if r := s.Routers(); len(r) != 1 || r[0].Via != b.IPv6Router().LinkLocal {
		t.Errorf("default routes are %+v", r)
	}
	if !slices.ContainsFunc(s.Routes, func(r Route6) bool { return r.Prefix == site.IPv6 && !r.Via.IsValid() }) {
		t.Errorf("the prefix isn't on link: %+v", s.Routes)
	}
}

// TestRoutePrefix has a router send a further prefix to the laptop, and later to another.
func TestRoutePrefix(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	sites := []SiteOptions{DefaultSites()[1], wwanSite()}
	l := Start(t, Options{NoPolkit: true, Sites: sites})
	b, delegated, private := l.Site("b"), pfx("2001:db8:b:f0::/60"), pfx("fd00:b::/64")
	_, laptop, err := b.WaitUplink(ctx)
	if err != nil {
		t.Fatal(err)
	}
	other, err := b.AddStation(ctx, "one", StationOptions{MachineOptions: hasty})
	if err != nil {
		t.Fatal(err)
	}
	station, _, err := other.WaitAddress6(ctx, b.Options.IPv6)
	if err != nil {
		t.Fatal(err)
	}
	inside := netip.MustParseAddr("2001:db8:b:f1::1")
	for _, c := range []struct {
		via  netip.Addr
		host *Host
	}{{laptop, l.Laptop}, {station, other.Host}, {LinkLocal(other.MAC), other.Host}} {
		if err := b.RoutePrefix(ctx, delegated, c.via); err != nil {
			t.Fatal(err)
		}
		if err := c.host.addAddress("lo", netip.PrefixFrom(inside, 128)); err != nil && c.via != LinkLocal(other.MAC) {
			t.Fatal(err)
		}
		reachesFrom(t, c.host, inside)
	}
	if _, err := other.Run(ctx, "ip", "addr", "del", inside.String()+"/128", "dev", "lo"); err != nil {
		t.Fatal(err)
	}
	if err := b.RoutePrefix(ctx, private, station); err != nil {
		t.Fatal(err)
	}
	if routes, err := l.Internet.nl.RouteGet(private.Addr().Next().AsSlice()); err == nil {
		t.Errorf("the internet routes unique local addresses: %v", routes)
	}
	// What the filter must pass is on record for routers to come.
	if _, err := b.AddRouter(ctx, "two", RouterOptions{}); err != nil || !slices.Contains(b.advertised(), delegated) {
		t.Errorf("the site has %v, %v", b.advertised(), err)
	}
	if sp, err := b.Spoofed(ctx); err != nil || sp.IPv6 != 0 {
		t.Errorf("spoofed: %+v, %v", sp, err)
	}
	w, mobile := l.Site("w"), pfx("2001:db8:e:f0::/60")
	if err := w.RoutePrefix(ctx, mobile, netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	wire, err := w.Cables[0].Capture(ctx)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.Internet.DialUDP(netip.AddrPort{}, netip.AddrPortFrom(mobile.Addr().Next(), 9))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := wire.Wait(ctx, DstIn(mobile)); err != nil {
		t.Error(err)
	}
}

// reachesFrom exchanges an echo from an address of the host's.
func reachesFrom(t *testing.T, h *Host, address netip.Addr) {
	t.Helper()
	err := poll(testContext(t), func() (bool, error) {
		conn, err := h.DialUDP(netip.AddrPortFrom(address, 0), EchoIPv6)
		if err != nil {
			return false, err
		}
		defer conn.Close()
		reply, err := exchange(t.Context(), conn, encodeEcho(0), reachTimeout)
		if err != nil {
			return false, err
		}
		_, seen, err := decodeEcho(reply)
		return seen.Addr() == address, err
	})
	if err != nil {
		t.Errorf("cannot reach %s from %s: %v", EchoIPv6, address, err)
	}
}
