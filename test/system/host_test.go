package system_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"gangway/test/lab"
)

// TestHostAccess has guests try a service of the host's own, by each family.
func TestHostAccess(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{})
	g, l := w.guest("one", w.network)
	h, _ := w.guest("two", w.network)
	listener, err := w.Laptop.ListenTCP(netip.MustParseAddrPort("[::]:2222"))
	w.must(err)
	defer listener.Close()
	linkLocal := netip.MustParsePrefix("fe80::/10")
	uplink := netip.MustParsePrefix(strings.Fields(w.run("ip", "-4", "-o", "addr", "show", "dev", "eth0"))[3]).Addr()
	connects := func(a netip.Addr) error {
		ctx, cancel := w.short()
		defer cancel()
		conn, err := g.DialTCP(ctx, netip.AddrPortFrom(a, 2222))
		if err == nil {
			conn.Close()
		}
		return err
	}
	// The bridge's link-local address, should it have one, is made of its MAC address (RFC 4291 appendix A).
	mac, err := net.ParseMAC(strings.TrimSpace(w.run("cat", "/sys/class/net/gway0/address")))
	w.must(err)
	eui := netip.AddrFrom16([16]byte{0xfe, 0x80, 8: mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]}).WithZone(lab.GuestInterface)
	neighbour, err := h.WaitIPv6(w.soon(), linkLocal)
	w.must(err)
	_, err = g.WaitIPv6(w.soon(), linkLocal)
	w.must(err)
	w.eventually("guests reach each other by link-local addresses", func() error { return w.pings(g.Host, neighbour.WithZone(lab.GuestInterface)) })

	targets := []netip.Addr{l.Router, uplink, eui}
	for _, a := range targets {
		if connects(a) == nil {
			t.Errorf("with host-access=services a guest reaches the host's port 2222 at %s", a)
		}
	}
	w.must(w.pings(g.Host, l.Router))
	w.call(w.network, "Network.Update", dict("host-access", "all"))
	for _, a := range targets {
		w.eventually("with host-access=all the guest reaches "+a.String(), func() error { return connects(a) })
	}
	w.call(w.network, "Network.Update", dict("host-access", "services"))
	for _, a := range targets {
		if connects(a) == nil {
			t.Errorf("with host-access=services again a guest reaches the host's port 2222 at %s", a)
		}
	}
}
