package lab

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func wwanSite() SiteOptions {
	return SiteOptions{Name: "w", Uplink: "wwan0", Metric: 700, WWAN: true, IPv4: pfx("10.64.7.0/30"), IPv6: pfx("2001:db8:e::/64")}
}

// TestWWAN is on the phone alone, loses the signal and the service, and has both again.
func TestWWAN(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	l := Start(t, Options{NoPolkit: true, Sites: []SiteOptions{wwanSite()}})
	w := l.Site("w")
	v4, v6, err := w.WaitUplink(ctx)
	if err != nil || v4 != netip.MustParseAddr("10.64.7.2") || v6 != netip.MustParseAddr("2001:db8:e:0:4000::2") {
		t.Fatalf("the laptop has %s and %s, %v", v4, v6, err)
	}
	reach := func() {
		t.Helper()
		for _, echo := range []netip.AddrPort{EchoIPv4, EchoIPv6} {
			if seen, err := l.Laptop.Reach(ctx, echo); err != nil || seen.Addr() != v4 && seen.Addr() != v6 {
				t.Errorf("the internet sees %v, %v", seen, err)
			}
		}
	}
	reach()
	link, err := l.Laptop.nl.LinkByName("wwan0")
	if err != nil || link.Attrs().EncapType != "none" || len(link.Attrs().HardwareAddr) != 0 {
		t.Errorf("the interface is %+v, %v, want no link layer", link, err)
	}
	s, err := l.Laptop.IPv6("wwan0")
	if err != nil || len(s.Routers()) != 1 || s.Routers()[0].Via != w.RouterIPv6 || len(s.Usable(linkLocal64)) != 1 ||
		!slices.ContainsFunc(s.Routes, func(r Route6) bool { return r.Prefix == w.Options.IPv6 && !r.Via.IsValid() }) {
		t.Errorf("the laptop has IPv6 %+v, %v", s, err)
	}
	if answers, err := l.Laptop.Query(ctx, w.DNS(), "site.example", TypeTXT); err != nil || !slices.Contains(answers.Texts, "w") {
		t.Errorf("DNS answers %+v, %v", answers, err)
	}
	// The whole /64 is the laptop's: the carrier solicits for none of it.
	other := w.Options.IPv6.Addr().Next().Next()
	wire, err := w.Cables[0].Capture(ctx)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.Internet.DialUDP(netip.AddrPort{}, netip.AddrPortFrom(other, 9))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if f, err := wire.Wait(ctx, DstIn(netip.PrefixFrom(other, 128))); err != nil || !f.Outgoing {
		t.Errorf("the carrier sent %+v, %v", f, err)
	}
	if n := wire.Count(IsNS); n > 0 {
		t.Errorf("%d solicitations on a link without neighbours", n)
	}

	if err := w.Unplug(); err != nil {
		t.Fatal(err)
	}
	if err := poll(ctx, func() (bool, error) {
		link, err := l.Laptop.nl.LinkByName("wwan0")
		return err == nil && link.Attrs().OperState == netlink.OperDown, err
	}); err != nil {
		t.Errorf("the interface keeps its carrier: %v", err)
	}
	if err := w.Plug(); err != nil {
		t.Fatal(err)
	}
	reach()
	if err := w.Hangup(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.NM.WaitPrimary(ctx, ""); err != nil {
		t.Error(err)
	}
	if have, err := l.Laptop.Addresses("wwan0"); err != nil || slices.ContainsFunc(have, func(p netip.Prefix) bool { return !linkLocal64.Contains(p.Addr()) }) {
		t.Errorf("without service the laptop has %v, %v", have, err)
	}
	if err := w.Dial(ctx); err != nil {
		t.Fatal(err)
	}
	reach()
	if sp, err := w.Spoofed(ctx); err != nil || sp.IPv4+sp.IPv6 != 0 {
		t.Errorf("spoofed: %+v, %v", sp, err)
	}
	if _, err := w.AddStation(ctx, "one", StationOptions{}); err == nil {
		t.Error("a station where there is no LAN")
	}
	if _, err := w.AddRouter(ctx, "two", RouterOptions{}); err == nil {
		t.Error("a router where there is no LAN")
	}
}

// TestWWANOptions has sites that can't be.
func TestWWANOptions(t *testing.T) {
	for want, change := range map[string]func(*SiteOptions){
		"one interface":     func(s *SiteOptions) { s.Bridge = "br0" },
		"nobody advertises": func(s *SiteOptions) { s.DHCPv6 = true },
		"no Wi-Fi":          func(s *SiteOptions) { s.ReflectMulticast = true },
		"want /16 to /29":   func(s *SiteOptions) { s.WWAN = false },
	} {
		site := wwanSite()
		change(&site)
		o := Options{Sites: []SiteOptions{site}}
		if err := o.complete(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want %q", err, want)
		}
	}
}
