package lab

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// prefixes compares netip's types by value.
var prefixes = cmp.Options{cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}), cmpopts.EquateEmpty()}

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// fullRA has everything; radvd can say all but the last three lines.
func fullRA() RA {
	ra := RA{
		HopLimit: 63, Managed: true, Other: true, Preference: -1, RouterLifetime: 900 * time.Second, Reachable: 30 * time.Second, Retrans: 250 * time.Millisecond, MTU: 1400,
		Prefixes: []PrefixInfo{
			{Prefix: pfx("2001:db8:a:1::/64"), OnLink: true, Autonomous: true, Valid: 2 * time.Hour, Preferred: time.Hour},
			{Prefix: pfx("fd00:a:a:a::/64"), Autonomous: true, RouterAddress: true, Valid: Forever, Preferred: Forever},
		},
		Routes: []RouteInfo{{Prefix: pfx("2001:db8:77::/48"), Preference: 1, Lifetime: 10 * time.Minute}, {Prefix: pfx("2001:db8:78:1:2::/80"), Lifetime: 10 * time.Minute}},
		RDNSS:  []ServerInfo{{Servers: []netip.Addr{netip.MustParseAddr("2001:db8:a:1::53"), netip.MustParseAddr("fd00:a:a:a::53")}, Lifetime: 20 * time.Minute}},
		DNSSL:  []SearchInfo{{Domains: []string{"corp.example", "example"}, Lifetime: 20 * time.Minute}},
	}
	ra.PREF64 = []PREF64Info{{Prefix: pfx("64:ff9b::/96"), Lifetime: 1800 * time.Second}, {Prefix: pfx("2001:db8:64::/48"), Lifetime: 8 * time.Second}}
	ra.Unknown = [][]byte{{37, 1, 'h', 't', 't', 'p', 0, 0}}
	ra.Prefixes = append(ra.Prefixes, PrefixInfo{Prefix: pfx("2001:db8:a:2::/64"), PreferPD: true, Autonomous: true, Valid: time.Hour, Preferred: 0})
	return ra
}

func TestRAMessage(t *testing.T) {
	ra := fullRA()
	ra.SourceLLA = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	b, err := ra.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseRA(b)
	if diff := cmp.Diff(ra, got, prefixes); diff != "" || err != nil {
		t.Errorf("read back: %v\n%s", err, diff)
	}
	for _, bad := range [][]byte{nil, b[:15], b[:len(b)-1], append(slices.Clone(b), 1, 0), append([]byte{133}, b[1:]...)} {
		if got, err := ParseRA(bad); err == nil {
			t.Errorf("%x was read as %+v", bad, got)
		}
	}
	if _, err := (RA{PREF64: []PREF64Info{{Prefix: pfx("64:ff9b::/95")}}}).Marshal(); err == nil {
		t.Error("a PREF64 of 95 bits was rendered")
	}
}

func FuzzParseRA(f *testing.F) {
	b, _ := fullRA().Marshal() // TestRAMessage looks at the error
	f.Add(b)
	for i := range b { // beside the seed, those that are nearly right
		c := slices.Clone(b)
		c[i] ^= byte(1 << (i % 8))
		f.Add(c)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ra, err := ParseRA(b)
		if err != nil {
			return
		}
		again, err := ra.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseRA(again); err != nil {
			t.Errorf("%+v read back: %+v, %v", ra, got, err)
		}
	})
}

// oneSite is a site with radvd, to be used without NetworkManager: the test configures the laptop.
func oneSite(ra RA) Options {
	site := DefaultSites()[1]
	site.RA = &ra
	return Options{NoNetworkManager: true, NoPolkit: true, Sites: []SiteOptions{site}}
}

// TestRadvd has everything that radvd can say on the wire, and what it can't by the lab's own hand.
func TestRadvd(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	l := Start(t, oneSite(DefaultRA()))
	b := l.Site("b")
	router := b.IPv6Router()
	if diff := cmp.Diff([]netip.Prefix{b.Options.IPv6}, []netip.Prefix{router.RA().Prefixes[0].Prefix}, prefixes); diff != "" {
		t.Error("prefixes by default:", diff)
	}
	wire, err := b.Cables[0].Capture(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for name, ra := range map[string]RA{"radvd": fullRA(), "ours": fullRA()} {
		if name == "radvd" {
			ra.PREF64, ra.Unknown, ra.Prefixes = nil, nil, ra.Prefixes[:2]
		}
		if err := b.SetRA(ctx, ra); err != nil {
			t.Fatal(err)
		}
		frame, err := wire.Wait(ctx, func(f Frame) bool {
			got, ok := f.RA()
			return ok && f.Outgoing && len(got.Unknown) == len(ra.Unknown) && len(got.DNSSL) == len(ra.DNSSL)
		})
		if err != nil {
			t.Fatal(name, err)
		}
		got, _ := frame.RA()
		ra.SourceLLA = router.MAC
		sorted := cmpopts.SortSlices(func(a, b PrefixInfo) bool { return a.Prefix.Addr().Less(b.Prefix.Addr()) })
		sortedRoutes := cmpopts.SortSlices(func(a, b RouteInfo) bool { return a.Prefix.Addr().Less(b.Prefix.Addr()) })
		if diff := cmp.Diff(ra, got, prefixes, sorted, sortedRoutes); diff != "" {
			t.Errorf("%s: the wire has\n%s", name, diff)
		}
		if frame.SrcIP() != router.LinkLocal || frame.Src().String() != router.MAC.String() {
			t.Errorf("%s: the advertisement is from %s, %s", name, frame.SrcIP(), frame.Src())
		}
	}
	// Ended by radvd and by ours, in order and not.
	for name, ra := range map[string]RA{"radvd": DefaultRA(b.Options.IPv6), "ours": fullRA()} {
		for _, end := range []struct {
			how   func() error
			final int
		}{{func() error { return router.StopRA(ctx) }, 1}, {func() error { return router.KillRA(ctx) }, 0}} {
			if err := b.SetRA(ctx, ra); err != nil {
				t.Fatal(err)
			}
			from := time.Now()
			if err := end.how(); err != nil {
				t.Fatal(err)
			}
			if end.final > 0 {
				if _, err := wire.Wait(ctx, All(After(from), isFinal)); err != nil {
					t.Fatal(name, err)
				}
			}
			// A solicitation is answered by nobody.
			solicit(t, l.Laptop, "eth0")
			if n := wire.Count(After(from), isFinal); n != end.final {
				t.Errorf("%s: %d final advertisements, want %d", name, n, end.final)
			}
			if n := wire.Count(After(from), IsRA, Not(isFinal)); n != 0 {
				t.Errorf("%s: %d advertisements after the end", name, n)
			}
		}
	}
	// Started again, both answer a solicitation.
	for _, ra := range []RA{DefaultRA(b.Options.IPv6), fullRA()} {
		ra.MaxInterval = 20 * time.Minute
		if err := b.SetRA(ctx, ra); err != nil {
			t.Fatal(err)
		}
		if err := router.KillRA(ctx); err != nil {
			t.Fatal(err)
		}
		if err := router.StartRA(ctx); err != nil {
			t.Fatal(err)
		}
		from := time.Now()
		solicit(t, l.Laptop, "eth0")
		if _, err := wire.Wait(ctx, All(After(from), IsRA)); err != nil {
			t.Errorf("a solicitation isn't answered, unknown options %v: %v", ra.Unknown, err)
		}
	}
	if err := wire.Close(); err != nil {
		t.Error(err)
	}
}

func isFinal(f Frame) bool {
	ra, ok := f.RA()
	return ok && ra.RouterLifetime == 0
}

// solicit asks all routers, and then, as routers answer after half a second at most, waits until something later has certainly arrived.
func solicit(t *testing.T, h *Host, ifname string) {
	t.Helper()
	link, err := h.Netlink().LinkByName(ifname)
	if err != nil {
		t.Fatal(err)
	}
	mac := link.Attrs().HardwareAddr
	src := LinkLocal(mac)
	body := append(make([]byte, 4), append([]byte{optSourceLLA, 1}, mac...)...)
	if err := h.Send(ifname, Ethernet(MulticastMAC(AllRouters), mac, EtherIPv6, IPv6(src, AllRouters, protoICMPv6, 255, ICMPv6(src, AllRouters, RouterSolicitation, 0, body)))); err != nil {
		t.Fatal(err)
	}
	delay := time.NewTimer(600 * time.Millisecond) // MAX_RA_DELAY_TIME, RFC 4861 10
	<-delay.C
}
