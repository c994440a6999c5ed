package main

import (
	"context"
	"fmt"

	godbus "github.com/godbus/dbus/v5"
)

// scene is something that happens to the laptop.
type scene struct {
	name, story string
	// prepare does what is no part of the deed; it may be nil.
	prepare func(ctx context.Context, w *world) error
	// act makes it happen; it returns when the deed is done, not its consequences.
	act func(ctx context.Context, w *world) error
	// expect is the uplink to which guests and host come at last, "" for nowhere; primary is NetworkManager's, if that is another.
	expect, primary string
	// ipv6 tells whether guests have IPv6 there.
	ipv6 bool
	// verdict says what was counted, after ends what must not outlast the scene; either may be nil.
	verdict func(ctx context.Context, w *world) ([]verdict, error)
	after   func(ctx context.Context, w *world) error
}

var scenes = []scene{
	{name: "Share", expect: "gwb-eth0", ipv6: true, act: share,
		story: "Both cables are shared: NetworkManager makes bridges of them. Guests become the dock's own router's."},
	{name: "Another desk", expect: "gwb-eth1", ipv6: true,
		story: "The dock's cable is pulled, the other desk's is there. NetworkManager waits 6 s; guests don't, and change routers.",
		act:   func(_ context.Context, w *world) error { return w.lab.Site("b").Unplug() }},
	{name: "Wi-Fi", expect: "wlan0", ipv6: true, verdict: refused,
		story: "That cable is pulled, too. Wi-Fi can't be bridged, so the laptop answers for its guests, by its own MAC.",
		act:   func(_ context.Context, w *world) error { return w.lab.Site("c").Unplug() }},
	{name: "VPN up", expect: tunnelName, primary: "wlan0", ipv6: true, prepare: openVPN, verdict: passedBy, after: closeVPN,
		story: "A VPN takes everything. It has one IPv6 address for the laptop: guests' are translated to it. Nothing goes past.",
		act:   func(_ context.Context, w *world) (err error) { w.vpn.up, err = w.vpn.Up(); return err }},
	{name: "On the phone", expect: "wwan0", ipv6: true,
		story: "Out of the Wi-Fi's reach, only the modem is left: a line without neighbours, whose prefix guests share.",
		act:   func(_ context.Context, w *world) error { return w.lab.Site("a").Unplug() }},
	{name: "Dock in", expect: "gwb-eth0", ipv6: true,
		story: "Back at the dock; both are up, the dock is preferred. Running flows move without a gap.",
		act:   func(_ context.Context, w *world) error { return w.lab.Site("b").Plug() }},
	{name: "Offline", act: disconnect,
		story: "Everything is disconnected: names of guests still resolve, everything else fails at once."},
	{name: "Back again", expect: "wlan0", ipv6: true, verdict: refused,
		story: "Wi-Fi returns.",
		act:   func(_ context.Context, w *world) error { return w.lab.Site("a").Plug() }},
}

// share has NetworkManager make bridges of the cables.
func share(ctx context.Context, w *world) error {
	for _, uplink := range []godbus.ObjectPath{"eth0", "eth1"} {
		if err := w.bus.Object(busName, root+"/uplink/"+uplink).CallWithContext(ctx, busName+".Uplink.SetSharing", 0, "bridge").Err; err != nil {
			return err
		}
	}
	return nil
}

// disconnect ends the connections that are left: the modem's, and the dock's, by which guests are.
func disconnect(ctx context.Context, w *world) error {
	if err := w.lab.Site("w").Hangup(ctx); err != nil {
		return err
	}
	_, err := w.lab.NM.Cli(ctx, "device", "disconnect", "eth0", "gwb-eth0")
	return err
}

// verdict is a count of what mustn't be.
type verdict struct {
	what  string
	count int
	than  string // what is there instead
}

func (v verdict) String(out *screen) string {
	mark := green(out, "✓")
	if v.count > 0 {
		mark = red(out, "✗")
	}
	return fmt.Sprintf("%s %s: %s%s", mark, v.what, bold(out, fmt.Sprint(v.count)), dim(out, v.than))
}

// refused counts what the access point took for another station's.
func refused(ctx context.Context, w *world) ([]verdict, error) {
	n, err := w.lab.Site("a").Violations(ctx)
	return []verdict{{what: "frames that the access point refused, as they weren't the laptop's", count: n}}, err
}
