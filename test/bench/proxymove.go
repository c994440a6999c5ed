package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"gangway/test/lab"
)

// seenFrom returns when the first answer came to a packet, sent after the time, that the server saw coming from the prefix.
func seenFrom(r lab.Result, within netip.Prefix, after time.Time) (time.Time, bool) {
	for _, s := range r.Samples {
		if !s.Lost() && s.Sent.After(after) && within.Contains(s.Seen.Addr()) {
			return s.Sent.Add(s.RTT), true
		}
	}
	return time.Time{}, false
}

// waitSeen waits until the server sees packets of the probe come from the link.
func waitSeen(ctx context.Context, probe *lab.Probe, by link6) error {
	return wait(ctx, "packets by "+by.uplink, func() bool {
		short, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		s, err := probe.WaitSuccess(short, time.Now())
		return err == nil && by.prefix.Contains(s.Seen.Addr())
	})
}

// link6 is a link as guests see it that are proxied there.
type link6 struct {
	uplink string
	prefix netip.Prefix
}

// proxySwitch6 is switch6 for guests that are proxied: between Wi-Fi and the desk, both up. Their router is the same everywhere.
func proxySwitch6(ctx context.Context, c config) error {
	gone := &series{name: "guest: old address not preferred, after NM's signal", unit: "ms", goal: "≤ 100"}
	usable := &series{name: "guest: new address usable", unit: "ms", goal: "≤ 1000"}
	echo := &series{name: "guest: first echo by the new address", unit: "ms", goal: "≤ 1000"}
	blackout := &series{name: "guest: IPv6 blackout, new connections", unit: "ms"}
	floor := &series{name: "floor: plain station, from its router's RA to an address", unit: "ms"}
	moved := &series{name: "Gangway: from noticing to the last thing told", unit: "ms"}
	o := c.options()
	o.Sites = wifiAndDesk()
	p, err := raiseProxied(ctx, o, prefixB)
	if err != nil {
		return err
	}
	defer p.Close()
	watch, err := p.guest.WatchIPv6(ctx)
	if err != nil {
		return err
	}
	defer watch.Close()
	station, err := p.Site("b").AddStation(ctx, "lan", lab.StationOptions{})
	if err != nil {
		return err
	}
	wifi, desk := link6{"wlan0", prefixA}, link6{"eth0", prefixB}
	for run := range c.runs {
		from, to, metric := wifi, desk, "50"
		if run%2 == 0 {
			from, to, metric = desk, wifi, "300"
		}
		// It has been there: its old address, which would be preferred again without any check, has to go.
		if _, err := p.guest.Run(ctx, "ip", "-6", "addr", "flush", "dev", lab.GuestInterface, "to", to.prefix.String()); err != nil {
			return err
		}
		if err := quiet(ctx); err != nil {
			return err
		}
		probe, err := p.guest.ProbeSockets(ctx, lab.EchoIPv6, lab.ProbeOptions{Timeout: 400 * time.Millisecond})
		if err != nil {
			return err
		}
		primary, err := p.watchPrimary()
		if err != nil {
			return err
		}
		begun := time.Now()
		if err := p.prefer(ctx, "eth0", metric); err != nil {
			return err
		}
		if err := p.waitMoored(ctx, to.uplink); err != nil {
			return err
		}
		signal, ok := primary()
		if !ok {
			return fmt.Errorf("NetworkManager did not announce a new primary connection")
		}
		if err := p.moved(ctx, watch, from, to, begun, signal, gone, usable); err != nil {
			return err
		}
		if err := waitSeen(ctx, probe, to); err != nil {
			return err
		}
		result := probe.Finish()
		at, ok := seenFrom(result, to.prefix, begun)
		if !ok {
			return fmt.Errorf("no answer to the guest's new address")
		}
		echo.addMS(at.Sub(signal))
		blackout.addMS(result.Blackout(begun))
		took, err := plainStation(ctx, station)
		if err != nil {
			return err
		}
		floor.addMS(took)
		if detected, done, ok := p.told(to.uplink); ok {
			moved.addMS(done - detected)
		}
	}
	table("Change of the active link between Wi-Fi and the desk, both up, guests proxied", gone, usable, usable.by(0.95, "≤ 2000"), echo, blackout, floor, moved)
	return p.refused(ctx)
}

// moved adds when the guest's old address ceased to be preferred, and when the new one was usable, counted from a time.
func (p *laptop) moved(ctx context.Context, watch *lab.Watch, from, to link6, begun, since time.Time, gone, usable *series) error {
	if _, err := watch.WaitNoAddress(ctx, from.prefix); err != nil {
		return err
	}
	// The first time: Linux takes an address that is deprecated once more for a preferred one, for a moment (addrconf_prefix_rcv).
	at, _ := watch.First(begun, func(s lab.IPv6State) bool { return len(s.Usable(from.prefix)) == 0 })
	gone.addMS(at.Sub(since))
	_, at, err := watch.WaitAddress(ctx, to.prefix)
	if err == nil {
		usable.addMS(at.Sub(since))
	}
	return err
}

// proxyPull6 pulls the desk's cable; Wi-Fi is up. Each time guests need a new address there.
func proxyPull6(ctx context.Context, c config) error {
	gone := &series{name: "guest: old address not preferred, after the cable was pulled", unit: "ms", goal: "≤ 400"}
	usable := &series{name: "guest: new address usable", unit: "ms"}
	echo := &series{name: "guest: first echo by the new address", unit: "ms"}
	host := &series{name: "host: IPv6 blackout", unit: "ms"}
	o := c.options()
	o.Sites = wifiAndDesk()
	p, err := raiseProxied(ctx, o, prefixB)
	if err != nil {
		return err
	}
	defer p.Close()
	watch, err := p.guest.WatchIPv6(ctx)
	if err != nil {
		return err
	}
	defer watch.Close()
	wifi, desk := link6{"wlan0", prefixA}, link6{"eth0", prefixB}
	for range c.runs {
		if _, _, err := watch.WaitAddress(ctx, desk.prefix); err != nil {
			return err
		}
		if _, err := p.guest.Run(ctx, "ip", "-6", "addr", "flush", "dev", lab.GuestInterface, "to", wifi.prefix.String()); err != nil {
			return err
		}
		guest, laptop, err := p.probes6(ctx)
		if err != nil {
			return err
		}
		begun := time.Now()
		if err := p.Site("b").Unplug(); err != nil {
			return err
		}
		if err := p.moved(ctx, watch, desk, wifi, begun, begun, gone, usable); err != nil {
			return err
		}
		if err := p.waitMoored(ctx, wifi.uplink); err != nil {
			return err
		}
		if err := waitSeen(ctx, guest, wifi); err != nil {
			return err
		}
		if _, err := laptop.WaitSuccess(ctx, time.Now()); err != nil {
			return err
		}
		at, ok := seenFrom(guest.Finish(), wifi.prefix, begun)
		if !ok {
			return fmt.Errorf("no answer to the guest's new address")
		}
		echo.addMS(at.Sub(begun))
		host.addMS(laptop.Finish().Blackout(begun))
		if err := p.Site("b").Plug(); err != nil {
			return err
		}
		if err := p.waitMoored(ctx, desk.uplink); err != nil {
			return err
		}
	}
	table("Unplug: the desk's cable is pulled, Wi-Fi is up, guests proxied", gone, usable, echo, host)
	return p.refused(ctx)
}
