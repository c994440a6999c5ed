package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"gangway/test/lab"
)

const tunnelName = "tun0"

// vpn is the tunnel of a scene, and what was seen of it.
type vpn struct {
	*lab.VPN
	up            time.Time
	past, through *lab.Capture
}

// openVPN allows guests NAT66 and lays a tunnel, which nobody takes yet.
func openVPN(ctx context.Context, w *world) error {
	allow := map[string]godbus.Variant{"nat66-fallback": godbus.MakeVariant(true)}
	if err := w.bus.Object(busName, w.network).CallWithContext(ctx, busName+".Network.Update", 0, allow).Err; err != nil {
		return err
	}
	v, err := w.lab.StartVPN(ctx, lab.VPNOptions{Name: tunnelName, Style: lab.VPNHalves,
		IPv4: netip.MustParsePrefix("10.99.0.2/24"), IPv6: netip.MustParsePrefix("2001:db8:f:0:99::2/128")})
	if err != nil {
		return err
	}
	w.vpn = &vpn{VPN: v}
	if w.vpn.past, err = w.lab.Cable("wlan0").Capture(ctx); err != nil {
		return err
	}
	w.vpn.through, err = w.lab.Laptop.Capture(ctx, tunnelName)
	return err
}

// passedBy counts the packets to the internet that took Wi-Fi since the tunnel was up, the laptop's own among them.
func passedBy(_ context.Context, w *world) ([]verdict, error) {
	v := w.vpn
	toInternet := func(f lab.Frame) bool { return f.DstIP() == lab.InternetIPv4 || f.DstIP() == lab.InternetIPv6 }
	past, through := v.past.Count(toInternet, lab.After(v.up)), v.through.Count(toInternet, lab.Outgoing)
	return []verdict{{what: "packets that passed the tunnel by", count: past, than: fmt.Sprintf("  (%d in it)", through)}}, nil
}

// closeVPN removes the tunnel and waits until guests are on Wi-Fi again.
func closeVPN(ctx context.Context, w *world) error {
	w.out.text("")
	return w.out.step("the VPN is closed, guests are on Wi-Fi again", func() error {
		if err := w.vpn.Close(); err != nil {
			return err
		}
		return w.waitProperty(ctx, w.network, "Network", "Uplink", func(v any) bool {
			p, _ := v.(godbus.ObjectPath)
			return strings.HasSuffix(string(p), "/wlan0")
		})
	})
}
