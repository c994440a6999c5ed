package system_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"gangway/test/lab"
)

// solicited has a guest ask for routers, and returns all that its bridge says thereupon, which may be more than one packet.
func (w *world) solicited(g *lab.Guest) (all lab.RA) {
	w.t.Helper()
	heard, err := g.Capture(w.ctx, lab.GuestInterface)
	w.must(err)
	defer heard.Close()
	from := lab.LinkLocal(g.MAC)
	w.must(g.Send(lab.Ethernet(lab.MulticastMAC(lab.AllRouters), g.MAC, lab.EtherIPv6,
		lab.IPv6(from, lab.AllRouters, 58, 255, lab.ICMPv6(from, lab.AllRouters, lab.RouterSolicitation, 0, make([]byte, 4))))))
	answer := lab.All(lab.Incoming, lab.IsRA, lab.DstIn(netip.PrefixFrom(from, 128)))
	_, err = heard.Wait(w.soon(), answer)
	w.must(err)
	w.must(g.Ping(w.soon(), w.scoped(g, w.self()))) // all that was sent before is there
	for i, f := range heard.Matching(answer) {
		ra, ok := f.RA()
		if !ok {
			w.t.Errorf("malformed: % x", f.Data)
		}
		if i == 0 {
			all = ra
			continue
		}
		if slices.ContainsFunc(ra.Prefixes, func(p lab.PrefixInfo) bool {
			return slices.ContainsFunc(all.Prefixes, func(q lab.PrefixInfo) bool { return p.Prefix == q.Prefix })
		}) {
			break // a second answer: the guest's kernel has asked too
		}
		all.Prefixes, all.Routes, all.RDNSS = append(all.Prefixes, ra.Prefixes...), append(all.Routes, ra.Routes...), append(all.RDNSS, ra.RDNSS...)
		all.DNSSL, all.PREF64, all.Unknown = append(all.DNSSL, ra.DNSSL...), append(all.PREF64, ra.PREF64...), append(all.Unknown, ra.Unknown...)
		all.MTU = max(all.MTU, ra.MTU)
	}
	return all
}

func (w *world) scoped(g *lab.Guest, a netip.Addr) netip.Addr {
	w.t.Helper()
	a, err := g.Scoped(a, lab.GuestInterface)
	w.must(err)
	return a
}

// What the link's router says reaches guests, but for what is wrong behind a router; and never as if it were good for longer than it is.
func TestProxiedOptions(t *testing.T) {
	t.Parallel()
	portal := append([]byte{37, 3}, "https://a.example/\x00\x00\x00\x00"...)
	unknown := []byte{200, 1, 1, 2, 3, 4, 5, 6}
	interval := []byte{7, 1, 0, 0, 0, 0, 0x27, 0x10}
	homeAgent := []byte{8, 1, 0, 0, 0, 1, 0, 60}
	server := prefixB.Addr().Next()
	ra := lab.RA{HopLimit: 55, Managed: true, Other: true, RouterLifetime: 600 * time.Second, MTU: 1400,
		Prefixes: []lab.PrefixInfo{{Prefix: prefixB, OnLink: true, Autonomous: true, RouterAddress: true, PreferPD: true, Valid: 2000 * time.Second, Preferred: 1000 * time.Second}},
		Routes:   []lab.RouteInfo{{Prefix: netip.MustParsePrefix("2001:db8:c0::/48"), Preference: 1, Lifetime: 700 * time.Second}},
		RDNSS: []lab.ServerInfo{{Servers: []netip.Addr{server, netip.MustParseAddr("fe80::53")}, Lifetime: 800 * time.Second},
			{Servers: []netip.Addr{netip.MustParseAddr("fe80::54")}, Lifetime: 800 * time.Second}},
		DNSSL:   []lab.SearchInfo{{Domains: []string{"a.example", "b.example"}, Lifetime: 900 * time.Second}},
		PREF64:  []lab.PREF64Info{{Prefix: netip.MustParsePrefix("64:ff9b::/96"), Lifetime: 960 * time.Second}},
		Unknown: [][]byte{portal, unknown, interval, homeAgent}}
	sites := desk()
	sites[0].RA = &ra
	w := start(t, lab.Options{Sites: sites})
	w.waitProperty(w.network, "IPv6State", "proxy")
	g, _, _ := w.guest6("vm1", prefixB)
	onB := w.cable("eth0")

	got := w.solicited(g)
	check := func(what string, ok bool) {
		t.Helper()
		if !ok {
			t.Errorf("%s: the guest heard %+v", what, got)
		}
	}
	check("hop limit", got.HopLimit == 55)
	check("M and O clear", !got.Managed && !got.Other)
	check("router lifetime", got.RouterLifetime > 0 && got.RouterLifetime <= ra.RouterLifetime)
	check("link-layer address of the bridge", lab.LinkLocal(got.SourceLLA) == w.self())
	check("MTU", got.MTU == 1400)
	check("one prefix", len(got.Prefixes) == 1 && got.Prefixes[0].Prefix == prefixB)
	if t.Failed() {
		return
	}
	p := got.Prefixes[0]
	check("flags of the prefix", p.Autonomous && !p.OnLink && !p.PreferPD && !p.RouterAddress)
	check("lifetimes of the prefix", p.Valid > 0 && p.Valid <= ra.Prefixes[0].Valid && p.Preferred > 0 && p.Preferred <= ra.Prefixes[0].Preferred)
	within := func(got, said time.Duration) bool { return got > 0 && got <= said }
	check("route", len(got.Routes) == 1 && got.Routes[0].Prefix == ra.Routes[0].Prefix && got.Routes[0].Preference == 1 &&
		within(got.Routes[0].Lifetime, ra.Routes[0].Lifetime))
	check("resolvers, none by its link-local address", len(got.RDNSS) == 1 && slices.Equal(got.RDNSS[0].Servers, []netip.Addr{server}) &&
		within(got.RDNSS[0].Lifetime, ra.RDNSS[0].Lifetime))
	check("search list", len(got.DNSSL) == 1 && slices.Equal(got.DNSSL[0].Domains, ra.DNSSL[0].Domains) &&
		within(got.DNSSL[0].Lifetime, ra.DNSSL[0].Lifetime))
	check("PREF64", len(got.PREF64) == 1 && got.PREF64[0].Prefix == ra.PREF64[0].Prefix && within(got.PREF64[0].Lifetime, ra.PREF64[0].Lifetime))
	has := func(option []byte) bool {
		return slices.ContainsFunc(got.Unknown, func(o []byte) bool { return slices.Equal(o, option) })
	}
	check("captive portal", has(portal))
	check("unknown option", has(unknown))
	check("nothing else", len(got.Unknown) == 2)

	// From when the router is silent, what it said is good for less and less.
	silent := time.Now()
	w.must(w.Site("b").IPv6Router().KillRA(w.ctx))
	w.pass(4 * time.Second)
	gone := time.Since(silent).Truncate(time.Second)
	got = w.solicited(g)
	check("remaining lifetimes", len(got.Prefixes) == 1 && len(got.Routes) == 1 && len(got.RDNSS) == 1 && len(got.DNSSL) == 1 && len(got.PREF64) == 1)
	if t.Failed() {
		return
	}
	check("timers are the usual ones again", got.Retrans == 0 || got.Retrans >= time.Second)
	check("router lifetime that remains", got.RouterLifetime <= ra.RouterLifetime-gone)
	check("lifetimes of the prefix that remain", got.Prefixes[0].Valid <= ra.Prefixes[0].Valid-gone && got.Prefixes[0].Preferred <= ra.Prefixes[0].Preferred-gone)
	check("of the route", got.Routes[0].Lifetime <= ra.Routes[0].Lifetime-gone)
	check("of the resolvers", got.RDNSS[0].Lifetime <= ra.RDNSS[0].Lifetime-gone)
	check("of the search list", got.DNSSL[0].Lifetime <= ra.DNSSL[0].Lifetime-gone)
	check("of PREF64", got.PREF64[0].Lifetime <= ra.PREF64[0].Lifetime-gone)
	w.none(onB, "advertisements sent by the laptop", lab.IsRA, lab.Outgoing)
}

// The next link has no IPv6: guests fall back to IPv4 at once, and get it again with the link that has.
func TestProxiedUplinkWithoutIPv6(t *testing.T) {
	t.Parallel()
	sites := wifiAndDesk()
	sites[0].IPv6, sites[0].RA = netip.Prefix{}, nil
	w := start(t, lab.Options{Sites: sites})
	w.waitProperty(w.network, "IPv6State", "proxy")
	g, watch, addr := w.guest6("vm1", prefixB)
	w.lease(g, netip.Prefix{})
	w.must(w.Site("b").Unplug())
	_, err := watch.WaitNoRouter(w.soon(), netip.Addr{})
	w.must(err)
	_, err = watch.WaitNoAddress(w.soon(), prefixB)
	w.must(err)
	w.waitProperty(w.network, "IPv6State", "link-local")
	w.waitReason("no router advertises IPv6 on wlan0")
	w.reachesBy(g.Host, "a")
	w.must(w.Site("b").Plug())
	_, _, err = watch.WaitAddress(w.soon(), prefixB)
	w.must(err)
	w.waitProperty(w.network, "IPv6State", "proxy")
	w.must(waitSeen(w, g, prefixB))
	w.known(addr)
	w.noViolations("a")
}

// Fifty flaps in ten seconds: guests end where the laptop does.
func TestProxiedFlaps(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{Sites: wifiAndDesk()})
	w.waitProperty(w.network, "IPv6State", "proxy")
	g, watch, _ := w.guest6("vm1", prefixB)
	onA, onB := w.cable("wlan0"), w.cable("eth0")
	for range 25 {
		for _, act := range []func() error{w.Site("b").Unplug, w.Site("b").Plug} {
			w.must(act())
			w.pass(200 * time.Millisecond) // that is the flapping
		}
	}
	w.waitUplink(w.network, "eth0")
	addr, _, err := watch.WaitAddress(w.soon(), prefixB)
	w.must(err)
	w.must(waitSeen(w, g, prefixB))
	_, err = watch.WaitNoAddress(w.soon(), prefixA)
	w.must(err)
	w.known(addr)
	for _, c := range []*lab.Capture{onA, onB} {
		w.none(c, "advertisements sent by the laptop", lab.IsRA, lab.Outgoing)
		w.none(c, "from the guest's MAC address", lab.FromMAC(g.MAC))
	}
	w.served()
	state, err := g.IPv6()
	if err == nil && (len(state.Routers()) != 1 || !state.HasRouter(w.self())) {
		err = errors.New(fmt.Sprint("the guest's routers are ", state.Routers()))
	}
	w.must(err)
	w.noViolations("a")
}
