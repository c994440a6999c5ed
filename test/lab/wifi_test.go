package lab

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestWiFi has the laptop send what an access point refuses, and gets from it what is the laptop's alone.
func TestWiFi(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	site := DefaultSites()[0]
	site.WiFi = true
	l := Start(t, Options{NoPolkit: true, Sites: []SiteOptions{site}})
	a := l.Site("a")
	_, mine, err := a.WaitUplink(ctx)
	if err != nil {
		t.Fatal(err)
	}
	neighbour, err := a.AddStation(ctx, "one", StationOptions{MachineOptions: hasty})
	if err != nil {
		t.Fatal(err)
	}
	theirs, _, err := neighbour.WaitAddress6(ctx, a.Options.IPv6)
	if err != nil {
		t.Fatal(err)
	}
	for _, echo := range []netip.AddrPort{EchoIPv4, EchoIPv6, neighbour.Echo(theirs)} {
		if _, err := l.Laptop.Reach(ctx, echo); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := a.Violations(ctx); err != nil || n != 0 {
		t.Fatalf("%d violations of the laptop itself, %v", n, err)
	}
	wire, err := a.Router.Capture(ctx, lanName)
	if err != nil {
		t.Fatal(err)
	}
	air, err := l.Laptop.Capture(ctx, "wlan0")
	if err != nil {
		t.Fatal(err)
	}
	foreign, last := mac(9, 1), mac(9, 2)
	solicitation := NeighborMessage(mine, SolicitedNode(a.RouterIPv6), NeighborSolicitation, 0, a.RouterIPv6, foreign)
	to := MulticastMAC(SolicitedNode(a.RouterIPv6))
	if err := l.Laptop.Send("wlan0",
		Ethernet(to, foreign, EtherIPv6, solicitation), Ethernet(to, foreign, EtherIPv6, solicitation),
		Ethernet(mac(1, 0), foreign, EtherARP, make([]byte, 46)),
		Ethernet(to, a.Cables[0].MAC, EtherIPv6, solicitation)); err != nil {
		t.Fatal(err)
	}
	if _, err := wire.Wait(ctx, All(FromMAC(a.Cables[0].MAC), IsNS, About(a.RouterIPv6))); err != nil {
		t.Fatal(err)
	}
	if n := wire.Count(FromMAC(foreign)); n > 0 {
		t.Errorf("the access point let %d frames of others pass", n)
	}
	refused, err := a.Refused(ctx)
	if diff := cmp.Diff(map[string]int{foreign.String() + " ip6": 2, foreign.String() + " arp": 1}, refused); err != nil || diff != "" {
		t.Errorf("refused (-want +got), %v:\n%s", err, diff)
	}
	if n, err := a.Violations(ctx); err != nil || n != 3 {
		t.Errorf("%d violations, %v, want 3", n, err)
	}
	// Downwards: nobody knows who has that MAC, so the switch floods it, but not over the air. What is for all is heard.
	message := IPv6(theirs, mine, protoNoNext, 64, nil)
	if err := neighbour.Send(Ethernet(foreign, neighbour.MAC, EtherIPv6, message), Ethernet(last, neighbour.MAC, EtherIPv6, message),
		Ethernet(MulticastMAC(AllNodes), neighbour.MAC, EtherIPv6, message)); err != nil {
		t.Fatal(err)
	}
	if _, err := air.Wait(ctx, All(FromMAC(neighbour.MAC), func(f Frame) bool { return f.Protocol() == protoNoNext })); err != nil {
		t.Fatal(err)
	}
	if n := air.Count(All(Incoming, FromMAC(neighbour.MAC), ToMAC(foreign, last))); n > 0 {
		t.Errorf("%d frames for others came over the air", n)
	}
	if n := air.Count(Incoming, FromMAC(a.Cables[0].MAC)); n > 0 {
		t.Errorf("%d frames of its own came back", n)
	}
}

// TestReflectMulticast has the laptop hear itself, and only itself twice.
func TestReflectMulticast(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	site := DefaultSites()[0]
	site.WiFi, site.ReflectMulticast = true, true
	l := Start(t, Options{NoNetworkManager: true, NoPolkit: true, Sites: []SiteOptions{site}})
	a, own := l.Site("a"), l.Site("a").Cables[0].MAC
	air, err := l.Laptop.Capture(ctx, "wlan0")
	if err != nil {
		t.Fatal(err)
	}
	target := a.RouterIPv6
	many := Ethernet(MulticastMAC(SolicitedNode(target)), own, EtherIPv6, NeighborMessage(LinkLocal(own), SolicitedNode(target), NeighborSolicitation, 0, target, own))
	single := Ethernet(a.IPv6Router().MAC, own, EtherIPv6, IPv6(LinkLocal(own), target, protoNoNext, 64, nil))
	if err := l.Laptop.Send("wlan0", single, many); err != nil {
		t.Fatal(err)
	}
	if _, err := air.Wait(ctx, All(Incoming, FromMAC(own), IsNS, About(target))); err != nil {
		t.Fatal(err)
	}
	if n := air.Count(Incoming, FromMAC(own), func(f Frame) bool { return f.Protocol() == protoNoNext }); n != 0 {
		t.Errorf("%d frames for one receiver came back", n)
	}
	if n, err := a.Violations(ctx); err != nil || n != 0 {
		t.Errorf("%d violations, %v", n, err)
	}
}
