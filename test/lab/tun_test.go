package lab

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// TestTunnel has packets of all sizes cross a line without a link layer, which is cut and mended.
func TestTunnel(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	l := Start(t, Options{NoNetworkManager: true, NoPolkit: true, Sites: []SiteOptions{}})
	far, err := l.newHost("far")
	if err != nil {
		t.Fatal(err)
	}
	tn, err := newTunnel(l.Laptop, "ppp9", far, "peer0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newTunnel(far, "other0", l.Laptop, "ppp9"); err == nil {
		t.Error("a second device of the same name")
	}
	here, there := netip.MustParseAddr("fd00:9::2"), netip.MustParseAddr("fd00:9::1")
	for h, end := range map[*Host]struct {
		name    string
		address netip.Addr
	}{l.Laptop: {"ppp9", here}, far: {"peer0", there}} {
		if err := h.addAddress(end.name, netip.PrefixFrom(end.address, 64)); err != nil {
			t.Fatal(err)
		}
		if err := h.setUp(end.name); err != nil {
			t.Fatal(err)
		}
	}
	wire, err := l.Laptop.Capture(ctx, "ppp9")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Laptop.Ping(ctx, there); err != nil {
		t.Fatal(err)
	}
	echo, err := wire.Wait(ctx, All(IsICMPv6(EchoReply6), Incoming))
	if err != nil || echo.SrcIP() != there || echo.DstIP() != here || echo.EtherType() != EtherIPv6 || echo.Length != len(echo.Data) {
		t.Errorf("captured %+v, %v", echo, err)
	}
	if err := wire.Close(); err != nil {
		t.Error(err)
	}
	rate, err := Throughput(ctx, l.Laptop, far, there, 200*time.Millisecond)
	if err != nil || rate < 1e7 {
		t.Errorf("%g bit/s, %v", rate, err)
	}
	t.Logf("%.2f Gbit/s", rate/1e9)
	if err := tn.setCarrier(false); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if err := l.Laptop.Ping(short, there); err == nil {
		t.Error("packets pass without carrier")
	}
	if err := tn.setCarrier(true); err != nil {
		t.Fatal(err)
	}
	if err := l.Laptop.Ping(ctx, there); err != nil {
		t.Error(err)
	}
	// Down and up again, as whoever manages the interface may do.
	for _, edit := range []func(netlink.Link) error{l.Laptop.nl.LinkSetDown, l.Laptop.nl.LinkSetUp} {
		if err := l.Laptop.editLink("ppp9", edit); err != nil {
			t.Fatal(err)
		}
		if err := far.Send("peer0", IPv6(there, here, protoNoNext, 64, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Laptop.addAddress("ppp9", netip.PrefixFrom(here, 64)); err != nil {
		t.Fatal(err)
	}
	if err := l.Laptop.Ping(ctx, there); err != nil {
		t.Error(err)
	}
	tn.close()
	tn.close()
	if _, err := l.Laptop.nl.LinkByName("ppp9"); err == nil {
		t.Error("the device outlives its file")
	}
}
