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

const (
	busName = "org.gangway.Gangway1"
	root    = godbus.ObjectPath("/org/gangway/Gangway1")
)

// world is the laptop with its guests, and Gangway as a client sees it.
type world struct {
	out     *screen
	lab     *lab.Lab
	bus     *godbus.Conn
	network godbus.ObjectPath
	guests  []*lab.Guest
	watches []*lab.Watch // of the guests' IPv6
	gateway netip.Addr
	bridge  string
	vpn     *vpn
	signals chan *godbus.Signal
}

// start activates the daemon through the bus, attaches the guests and lets them ask for addresses.
func (w *world) start(ctx context.Context) (err error) {
	if w.bus, err = w.lab.Bus(); err != nil {
		return err
	}
	manager := w.bus.Object(busName, root)
	if err := w.out.step("first D-Bus call: the bus starts gangwayd, which answers", func() error {
		return manager.CallWithContext(ctx, busName+".Manager.NetworkByName", 0, "default").Store(&w.network)
	}); err != nil {
		return err
	}
	if err := w.bus.AddMatchSignal(godbus.WithMatchSender(busName)); err != nil {
		return err
	}
	w.signals = make(chan *godbus.Signal, 256)
	w.bus.Signal(w.signals)
	if err := w.out.step("default network is active", func() error {
		return w.waitProperty(ctx, w.network, "Network", "State", func(v any) bool { return v == "active" })
	}); err != nil {
		return err
	}
	for _, name := range []string{"vm1", "vm2"} {
		if err := w.out.step("guest "+name+": attached over D-Bus, address by DHCP", func() error { return w.addGuest(ctx, name) }); err != nil {
			return err
		}
	}
	if err := w.out.step("guests have IPv6 addresses of their own at the dock", func() error {
		for _, watch := range w.watches {
			if _, _, err := watch.WaitAddress(ctx, w.lab.Site("b").Options.IPv6); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	return w.show(ctx)
}

func (w *world) addGuest(ctx context.Context, name string) error {
	g, err := w.lab.AddGuest(ctx, name)
	if err != nil {
		return err
	}
	call := w.bus.Object(busName, w.network).CallWithContext(ctx, busName+".Network.Attach", 0, g.Port, map[string]godbus.Variant{})
	if call.Err != nil {
		return call.Err
	}
	if err := g.DHCP(ctx); err != nil {
		return err
	}
	lease, err := g.WaitLease(ctx, netip.Prefix{})
	if err != nil {
		return err
	}
	w.gateway = lease.Router
	watch, err := g.WatchIPv6(ctx)
	if err != nil {
		return err
	}
	w.guests, w.watches = append(w.guests, g), append(w.watches, watch)
	return nil
}

// show prints what a client sees on the bus.
func (w *world) show(ctx context.Context) error {
	get := func(path godbus.ObjectPath, iface, property string) (any, error) {
		v, err := w.bus.Object(busName, path).GetProperty(busName + "." + iface + "." + property)
		return v.Value(), err
	}
	w.out.text("")
	for _, p := range []struct{ iface, name string }{{"Network", "Bridge"}, {"Network", "Subnet"}, {"Network", "IPv4State"}, {"Network", "Uplink"}, {"Network", "Nameservers"},
		{"Network", "IPv6State"}, {"Network", "IPv6Reason"}} {
		v, err := get(w.network, p.iface, p.name)
		if err != nil {
			return err
		}
		if p.name == "Bridge" {
			w.bridge, _ = v.(string)
		}
		w.out.text(fmt.Sprintf("      %-12s %v", p.name, v))
	}
	for _, g := range w.guests {
		l, err := g.Lease()
		if err != nil {
			return err
		}
		w.out.text(fmt.Sprintf("      %-12s %v", g.Name[len("guest-"):], l.Address))
	}
	return nil
}

func (w *world) waitProperty(ctx context.Context, path godbus.ObjectPath, iface, name string, ok func(any) bool) error {
	for {
		v, err := w.bus.Object(busName, path).GetProperty(busName + "." + iface + "." + name)
		if err == nil && ok(v.Value()) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("property %s of %s is %v: %w", name, path, v, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// waitUplinks waits until NetworkManager has activated every site's connection.
func (w *world) waitUplinks(ctx context.Context) error {
	for _, s := range w.lab.Sites {
		for {
			state, err := w.lab.NM.Cli(ctx, "-g", "GENERAL.STATE", "device", "show", s.Uplink)
			if err == nil && strings.HasPrefix(state, "100") {
				break
			}
			if err := pause(ctx, 50*time.Millisecond); err != nil {
				return fmt.Errorf("cannot see %s activated: %w", s.Uplink, err)
			}
		}
	}
	return w.lab.NM.WaitPrimary(ctx, w.lab.Expected())
}
