package system_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"gangway/test/lab"
)

// What a guest may not say on the link, by whichever disguise, and what it may.
func TestGuestIsNoRouter(t *testing.T) {
	t.Parallel()
	w := bridged(t, lab.Options{Sites: twoBridges()[1:]})
	g, _, addr := w.guest6("vm1", prefixB)
	w.lease(g, netip.Prefix{})
	st, err := w.Site("b").AddStation(w.ctx, "lan", lab.StationOptions{})
	w.must(err)
	stAddr, err := st.WaitIPv6(w.soon(), prefixB)
	w.must(err)
	w.must(g.Ping(w.soon(), stAddr))
	wire := w.cable("eth0")
	heard, err := st.Capture(w.ctx, lab.GuestInterface)
	w.must(err)

	rogue := netip.MustParsePrefix("2001:db8:bad::/64")
	from := lab.LinkLocal(g.MAC)
	body, err := lab.DefaultRA(rogue).Marshal()
	w.must(err)
	ra := lab.ICMPv6(from, lab.AllNodes, lab.RouterAdvertisement, 0, body[4:])
	all := lab.MulticastMAC(lab.AllNodes)
	packet := func(next uint8, payload []byte) []byte {
		return lab.Ethernet(all, g.MAC, 0x86dd, lab.IPv6(from, lab.AllNodes, next, 255, payload))
	}
	const (
		icmp, hopByHop, options, fragment = 58, 0, 60, 44
	)
	split := len(ra) / 2 / 8 * 8
	longOptions := lab.Extension(icmp, make([]byte, 1000))
	dhcp := lab.UDPv6(netip.AddrPortFrom(from, 547), netip.AddrPortFrom(lab.AllNodes, 546), []byte{2, 1, 2, 3})
	redirect := lab.ICMPv6(from, lab.AllNodes, lab.Redirect6, 0, append(make([]byte, 4), append(from.AsSlice(), stAddr.AsSlice()...)...))
	arp := append([]byte{0, 1, 8, 0, 6, 4, 0, 1}, append(append(append([]byte{}, g.MAC...), 10, 20, 0, 1), append(make([]byte, 6), 10, 20, 0, 5)...)...)
	evil := map[string][][]byte{
		"advertisement": {packet(icmp, ra)},
		"advertisement behind hop-by-hop options":    {packet(hopByHop, append(lab.Extension(icmp, nil), ra...))},
		"advertisement behind three headers":         {packet(hopByHop, append(lab.Extension(options, nil), append(lab.Extension(options, nil), append(lab.Extension(icmp, nil), ra...)...)...))},
		"advertisement in fragments":                 {packet(fragment, lab.Fragment(icmp, 0, true, 7, ra[:split])), packet(fragment, lab.Fragment(icmp, split, false, 7, ra[split:]))},
		"advertisement in one fragment":              {packet(fragment, lab.Fragment(icmp, 0, false, 8, ra))},
		"advertisement behind options in a fragment": {packet(fragment, lab.Fragment(options, 0, true, 9, longOptions)), packet(fragment, lab.Fragment(options, len(longOptions), false, 9, ra))},
		"redirect":           {packet(icmp, redirect)},
		"DHCPv6 server":      {packet(17, dhcp)},
		"ARP":                {lab.Ethernet(net.HardwareAddr{255, 255, 255, 255, 255, 255}, g.MAC, 0x0806, arp)},
		"IPv4":               {lab.Ethernet(st.MAC, g.MAC, 0x0800, append([]byte{0x45, 0, 0, 20}, make([]byte, 16)...))},
		"spanning tree":      {append(append([]byte{1, 0x80, 0xc2, 0, 0, 0}, g.MAC...), append([]byte{0, 38, 0x42, 0x42, 3}, make([]byte, 35)...)...)},
		"VLAN":               {lab.Tagged(packet(icmp, ra), 5)},
		"VLAN, well behaved": {lab.Tagged(lab.Ethernet(st.MAC, g.MAC, 0x86dd, lab.IPv6(addr, stAddr, icmp, 64, lab.ICMPv6(addr, stAddr, 128, 0, []byte{0, 1, 0, 1}))), 5)},
		"LLDP":               {lab.Ethernet(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0xe}, g.MAC, 0x88cc, []byte{0, 0})},
	}
	for range 3 {
		for name, frames := range evil {
			if err := g.Send(frames...); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	// What it may, last, so that all before it had its chance.
	w.must(g.Ping(w.soon(), stAddr))
	big, err := g.Run(w.ctx, "ping", "-6", "-c", "2", "-W", "5", "-s", "4000", stAddr.String())
	if err != nil {
		t.Errorf("fragmented packets don't pass: %v\n%s", err, big)
	}
	// The names of the guest's frames on the wire: the laptop sends them on, from the guest's MAC.
	fromGuest := lab.FromMAC(g.MAC)
	for name, c := range map[string]*lab.Capture{"wire": wire, "station": heard} {
		w.none(c, name+": not IPv6", fromGuest, lab.Not(ipv6))
		w.none(c, name+": advertisements", fromGuest, lab.IsRA)
		w.none(c, name+": redirects", fromGuest, lab.IsRedirect)
		w.none(c, name+": of a DHCPv6 server", fromGuest, lab.IsDHCPv6Server)
		if c.Count(fromGuest, ipv6) == 0 {
			t.Errorf("%s: the capture saw nothing of the guest at all", name)
		}
	}
	state, err := st.IPv6()
	w.must(err)
	if got := state.Routers(); len(got) != 1 || got[0].Via != w.router("b") {
		t.Errorf("the station's routers are %v", got)
	}
	for _, a := range state.Global() {
		if rogue.Contains(a.Prefix.Addr()) {
			t.Errorf("the station has an address of the guest's prefix: %v", a)
		}
	}
	if got := w.get(w.network, "IPv6Prefixes").([]string); len(got) != 1 || got[0] != prefixB.String() {
		t.Errorf("IPv6Prefixes is %v", got)
	}
	w.noHostIPv6OnBridge()
}

// A guest that is to reach only services of the host's doesn't reach more by the uplink's addresses or the bridge's.
func TestHostServicesByIPv6(t *testing.T) {
	t.Parallel()
	w := bridged(t, lab.Options{Sites: twoBridges()[1:]})
	g, _, addr := w.guest6("vm1", prefixB)
	host, err := w.Laptop.WaitAddress(w.soon(), "br0", prefixB)
	w.must(err)
	bridge, err := w.Laptop.WaitAddress(w.soon(), "gway0", linkLAN)
	w.must(err)
	scoped, err := g.Scoped(bridge, lab.GuestInterface)
	w.must(err)
	listener, err := w.Laptop.ListenTCP(netip.AddrPortFrom(netip.IPv6Unspecified(), 7777))
	w.must(err)
	defer listener.Close()
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	connects := func(from *lab.Host, to netip.Addr, port int) error {
		_, err := from.Run(w.ctx, "timeout", "5", "bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/%s/%d", to, port))
		return err
	}
	on := bridge.WithZone(lab.GuestInterface)
	w.must(g.Ping(w.soon(), host))
	w.must(g.Ping(w.soon(), scoped))
	for _, a := range []netip.Addr{host, on} {
		if connects(g.Host, a, 7777) == nil {
			t.Errorf("the guest reaches a service of the host's at %s", a)
		}
	}
	_, err = g.ServeEcho()
	w.must(err)
	if err := connects(w.Laptop, addr, lab.EchoPort); err != nil {
		t.Errorf("the host doesn't reach its guest: %v", err)
	}
	w.call(w.network, "Network.Update", dict("host-access", "all"))
	for _, a := range []netip.Addr{host, on} {
		w.eventually(fmt.Sprintf("with host-access=all the guest reaches %s", a), func() error { return connects(g.Host, a, 7777) })
	}
}
