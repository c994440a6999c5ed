package lab

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// bridged makes an uplink of the laptop a port of a bridge that has no addresses, so that guests are on the site's LAN.
func bridged(t *testing.T, l *Lab, bridge, uplink string) {
	t.Helper()
	script := "ip link add $0 type bridge mcast_snooping 0 && echo 1 >/proc/sys/net/ipv6/conf/$0/disable_ipv6 && ip link set $1 master $0 && ip link set $0 up && ip link set $1 up"
	if _, err := l.Laptop.Run(testContext(t), "sh", "-c", script, bridge, uplink); err != nil {
		t.Fatal(err)
	}
}

func addGuest(t *testing.T, l *Lab, name, bridge string, o MachineOptions) *Guest {
	t.Helper()
	g, err := l.AddGuestWith(testContext(t), name, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.AttachTo(bridge); err != nil {
		t.Fatal(err)
	}
	return g
}

// TestGuestFollowsRouter reads what a guest's kernel makes of advertisements, and times it.
func TestGuestFollowsRouter(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	old, next := pfx("2001:db8:b::/64"), pfx("2001:db8:b:1::/64")
	ra := DefaultRA(old)
	ra.Retrans, ra.MTU, ra.HopLimit, ra.RouterLifetime = 200*time.Millisecond, 1400, 33, 1200*time.Second
	l := Start(t, oneSite(ra))
	router := l.Site("b").IPv6Router()
	bridged(t, l, "br0", "eth0")
	g, err := l.AddGuest(ctx, "one")
	if err != nil {
		t.Fatal(err)
	}
	w, err := g.WatchIPv6(ctx)
	if err != nil {
		t.Fatal(err)
	}
	plugged := time.Now()
	if err := g.AttachTo("br0"); err != nil {
		t.Fatal(err)
	}
	got, usable, err := w.WaitAddress(ctx, old)
	if err != nil {
		t.Fatal(err)
	}
	if want := SLAAC(old, g.MAC); got != want {
		t.Errorf("the guest's address is %s, want %s", got, want)
	}
	heard, err := w.WaitRouter(ctx, router.LinkLocal)
	if err != nil {
		t.Fatal(err)
	}
	// The advertisement that brings both is followed by DAD, one solicitation long.
	if heard.Before(plugged) || usable.Sub(heard) < ra.Retrans || usable.Sub(heard) > 20*time.Second {
		t.Errorf("router heard after %v, address usable after %v", heard.Sub(plugged), usable.Sub(plugged))
	}
	if first, ok := w.First(plugged, func(s IPv6State) bool { return len(s.Usable(old)) > 0 }); !ok || !first.Equal(usable) {
		t.Errorf("address first usable at %v, %t, want %v", first.Sub(plugged), ok, usable.Sub(plugged))
	}
	if was, ok := w.First(plugged, func(s IPv6State) bool { return len(s.Routers()) == 0 }); !ok || !was.Equal(plugged) {
		t.Errorf("without router at %v, %t, want from the beginning", was.Sub(plugged), ok)
	}
	if _, _, err := g.WaitReach(ctx, EchoIPv6); err != nil {
		t.Fatal(err)
	}
	checkState(t, g, router, ra, old)

	// What is being checked is listed, but not usable.
	if _, err := g.Run(ctx, "sh", "-c", "echo 100 >/proc/sys/net/ipv6/conf/eth0/dad_transmits && ip addr add fd00::1/64 dev eth0"); err != nil {
		t.Fatal(err)
	}
	if s, err := g.IPv6(); err != nil || len(s.Global()) != 2 || !slices.ContainsFunc(s.Global(), func(a Address6) bool { return a.Tentative }) || len(s.Usable(pfx("fd00::/8"))) != 0 {
		t.Errorf("with a tentative address the guest has %+v, %v", s, err)
	}
	if _, err := g.Run(ctx, "sh", "-c", "ip addr del fd00::1/64 dev eth0 && echo 1 >/proc/sys/net/ipv6/conf/eth0/dad_transmits"); err != nil {
		t.Fatal(err)
	}

	// The prefix changes: the old is deprecated at once, the new usable; addresses stay as long as they are valid.
	changed := DefaultRA(next)
	changed.Prefixes = append(changed.Prefixes, PrefixInfo{Prefix: old, OnLink: true, Autonomous: true})
	t0 := time.Now()
	if err := router.SetRA(ctx, changed); err != nil {
		t.Fatal(err)
	}
	deprecated, err := w.WaitNoAddress(ctx, old)
	if err != nil {
		t.Fatal(err)
	}
	_, usable, err = w.WaitAddress(ctx, next)
	if err != nil {
		t.Fatal(err)
	}
	if deprecated.Before(t0) || usable.Before(deprecated) {
		t.Errorf("old prefix deprecated after %v, new usable after %v", deprecated.Sub(t0), usable.Sub(t0))
	}
	s, err := g.IPv6()
	if i := slices.IndexFunc(s.Addresses, func(a Address6) bool { return old.Contains(a.Prefix.Addr()) }); err != nil || i < 0 || !s.Addresses[i].Deprecated || s.Addresses[i].Preferred != 0 {
		t.Errorf("after the change the guest has %+v, %v, want the old address deprecated", s, err)
	}
	sample, _, err := g.WaitReach(ctx, EchoIPv6)
	if err != nil || !next.Contains(sample.Seen.Addr()) {
		t.Errorf("the internet sees %v, %v, want the new prefix", sample.Seen, err)
	}

	// The router goes in order.
	t0 = time.Now()
	if err := router.StopRA(ctx); err != nil {
		t.Fatal(err)
	}
	gone, err := w.WaitNoRouter(ctx, router.LinkLocal)
	if err != nil || gone.Before(t0) {
		t.Errorf("default route gone after %v, %v", gone.Sub(t0), err)
	}
	if took, err := g.WaitNoRouter(ctx, netip.Addr{}); err != nil || took > time.Second {
		t.Errorf("waiting for what is so took %v, %v", took, err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	short, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := g.WaitRouter(short, router.LinkLocal); err == nil {
		t.Error("a router was seen that isn't")
	}
}

func checkState(t *testing.T, g *Guest, router *Router, ra RA, within netip.Prefix) {
	t.Helper()
	s, err := g.IPv6()
	if err != nil {
		t.Fatal(err)
	}
	global := s.Global()
	if len(global) != 1 || !global[0].Usable() || global[0].Prefix.Bits() != 64 || global[0].Valid < 86000*time.Second || global[0].Valid > 24*time.Hour ||
		global[0].Preferred < 14000*time.Second || global[0].Preferred > 4*time.Hour {
		t.Errorf("global addresses are %+v", global)
	}
	if local := s.Usable(linkLocal64); len(local) != 1 || local[0] != LinkLocal(g.MAC) {
		t.Errorf("link-local addresses are %v, want %v", local, LinkLocal(g.MAC))
	}
	if r := s.Routers(); len(r) != 1 || r[0].Via != router.LinkLocal || r[0].Lifetime > ra.RouterLifetime || r[0].Lifetime < ra.RouterLifetime-time.Minute || r[0].Protocol != 9 {
		t.Errorf("default routes are %+v", r)
	}
	if !slices.ContainsFunc(s.Routes, func(r Route6) bool { return r.Prefix == within && !r.Via.IsValid() }) {
		t.Errorf("no route to the link's own prefix in %+v", s.Routes)
	}
	if got := s.Neighbors[router.LinkLocal]; got.String() != router.MAC.String() {
		t.Errorf("the router's MAC is %s, want %s", got, router.MAC)
	}
	if s.Retrans != ra.Retrans || s.MTU != int(ra.MTU) || s.HopLimit != int(ra.HopLimit) {
		t.Errorf("retrans timer %v, MTU %d, hop limit %d", s.Retrans, s.MTU, s.HopLimit)
	}
}

// TestTwoRouters has a second router on the LAN, and guests of two kinds.
func TestTwoRouters(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	l := Start(t, oneSite(DefaultRA()))
	b := l.Site("b")
	bridged(t, l, "br0", "eth0")
	quick := addGuest(t, l, "quick", "br0", MachineOptions{OptimisticDAD: true, Sysctl: map[string]string{"net.ipv6.conf.eth0.use_tempaddr": "2"}})
	second := pfx("2001:db8:b:2::/64")
	ra := DefaultRA(second)
	ra.Preference = 1
	w, err := quick.WatchIPv6(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.WaitAddress(ctx, b.Options.IPv6); err != nil {
		t.Fatal(err)
	}
	other, err := b.AddRouter(ctx, "two", RouterOptions{RA: &ra, LinkLocal: netip.MustParseAddr("fe80::2")})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.WaitAddress(ctx, second); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*Router{b.IPv6Router(), other} {
		if _, err := w.WaitRouter(ctx, r.LinkLocal); err != nil {
			t.Error(err)
		}
	}
	// Both may have a prefix, with addresses of their own; it says the same again without ado.
	ra.Prefixes = append(ra.Prefixes, DefaultRA(b.Options.IPv6).Prefixes...)
	if err := other.SetRA(ctx, ra); err != nil {
		t.Fatal(err)
	}
	var lan []string
	if have, err := other.Addresses(other.Interface); err != nil {
		t.Error(err)
	} else {
		for _, p := range have {
			lan = append(lan, p.String())
		}
	}
	slices.Sort(lan)
	if want := []string{"2001:db8:b:2::1/64", "2001:db8:b::3/64", "fe80::2/64"}; !slices.Equal(lan, want) {
		t.Errorf("the second router has %v, want %v", lan, want)
	}
	optimistic := func(s IPv6State) bool {
		return slices.ContainsFunc(s.Global(), func(a Address6) bool { return a.Optimistic && a.Usable() })
	}
	if _, ok := w.First(time.Time{}, optimistic); !ok {
		t.Error("no address was ever optimistic")
	}
	if _, err := w.Wait(ctx, "temporary addresses", func(s IPv6State) bool {
		return slices.ContainsFunc(s.Global(), func(a Address6) bool { return a.Temporary && second.Contains(a.Prefix.Addr()) })
	}); err != nil {
		t.Error(err)
	}
	if s := w.last(); s.Routers()[0].Preference+s.Routers()[1].Preference != 1 {
		t.Errorf("preferences are lost: %+v", s.Routers())
	}
	// Either router carries the packets of both prefixes, out and back.
	for _, down := range []*Router{b.IPv6Router(), other} {
		if err := down.StopRA(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := w.WaitNoRouter(ctx, down.LinkLocal); err != nil {
			t.Fatal(err)
		}
		for _, source := range w.last().Usable(netip.MustParsePrefix("2001:db8::/32")) {
			conn, err := quick.DialUDP(netip.AddrPortFrom(source, 0), EchoIPv6)
			if err != nil {
				t.Fatal(err)
			}
			if err := poll(ctx, func() (bool, error) {
				_, err := exchange(ctx, conn, encodeEcho(0), reachTimeout)
				return err == nil, err
			}); err != nil {
				t.Errorf("from %s with %s stopped: %v", source, down.Name, err)
			}
			conn.Close()
		}
		if err := down.StartRA(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := w.WaitRouter(ctx, down.LinkLocal); err != nil {
			t.Fatal(err)
		}
	}
	if sp, err := b.Spoofed(ctx); err != nil || sp.IPv6 != 0 {
		t.Errorf("honest packets counted as spoofed: %+v, %v", sp, err)
	}
}

// TestNoIPv6 is a site whose router knows IPv4 alone, and a muted one.
func TestNoIPv6(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	sites := DefaultSites()
	sites[0].IPv6, sites[1].Mute = netip.Prefix{}, true
	l := Start(t, Options{NoNetworkManager: true, NoPolkit: true, Sites: sites})
	for _, s := range l.Sites {
		wire, err := s.Cables[0].Capture(ctx)
		if err != nil {
			t.Fatal(err)
		}
		solicit(t, l.Laptop, s.Uplink)
		if _, err := wire.Wait(ctx, All(IsICMPv6(RouterSolicitation), Incoming)); err != nil {
			t.Errorf("no solicitation at site %s: %v", s.Name, err)
		}
		if n := wire.Count(IsRA); n != 0 {
			t.Errorf("%d advertisements at site %s", n, s.Name)
		}
		if s.Name == "b" {
			if err := s.IPv6Router().StartRA(ctx); err != nil {
				t.Fatal(err)
			}
			if _, err := wire.Wait(ctx, RAWith(s.Options.IPv6)); err != nil {
				t.Error(err)
			}
		}
	}
}
