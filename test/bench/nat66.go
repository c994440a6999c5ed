package main

import (
	"context"
	"fmt"
	"os"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"gangway/test/lab"
)

// nat66Recover follows one long flow of a guest whose IPv6 is translated: from Wi-Fi to the desk, which appears, and back, when
// the desk's cable is pulled and nothing else is there until Wi-Fi is connected.
func nat66Recover(ctx context.Context, c config) error {
	dock := recovery{first: &series{name: "dock in: first answer, after the host's new address was usable", unit: "ms", goal: "≤ 1000"},
		gap: &series{name: "  longest time without an answer", unit: "ms"}}
	roam := recovery{first: &series{name: "roam: first answer, after the host's new address was usable", unit: "ms", goal: "≤ 1000"},
		gap: &series{name: "  longest time without an answer", unit: "ms"}}
	o := c.options()
	o.Sites = wifiAndDesk()
	o.Sites[1].Unplugged = true
	p, err := raise(ctx, o, false)
	if err != nil {
		return err
	}
	defer p.Close()
	if c.debug {
		defer p.DumpLogs(os.Stderr, 4<<20)
	}
	if err := p.call(ctx, p.network, "Network.Update", map[string]godbus.Variant{"ipv6-method": godbus.MakeVariant("nat66")}).Err; err != nil {
		return err
	}
	if err := p.waitMoored6(ctx, "wlan0", "nat66"); err != nil {
		return err
	}
	wifi := func(verb string) error {
		_, err := p.NM.Cli(ctx, "device", verb, "wlan0")
		return err
	}
	for range c.runs {
		if err := dock.follow(ctx, p, link6{"eth0", prefixB}, p.Site("b").Plug); err != nil {
			return err
		}
		if err := wifi("disconnect"); err != nil {
			return err
		}
		if err := roam.follow(ctx, p, link6{"wlan0", prefixA}, func() error {
			if err := p.Site("b").Unplug(); err != nil {
				return err
			}
			return wifi("connect")
		}); err != nil {
			return err
		}
	}
	table("NAT66: a long flow of a guest over a change of the uplink", dock.first, dock.gap, roam.first, roam.gap)
	return nil
}

type recovery struct{ first, gap *series }

// follow makes the change and sees the flow through it. The host has no address on the new link before.
func (r recovery) follow(ctx context.Context, p *laptop, to link6, change func() error) error {
	if err := quiet(ctx); err != nil {
		return err
	}
	watch, err := p.Laptop.WatchIPv6(ctx, to.uplink)
	if err != nil {
		return err
	}
	defer watch.Close()
	if _, err := watch.WaitNoAddress(ctx, to.prefix); err != nil {
		return err
	}
	flow, err := p.guest.ProbeFlow(ctx, lab.EchoIPv6, lab.ProbeOptions{Interval: 2 * time.Millisecond, Timeout: 400 * time.Millisecond})
	if err != nil {
		return err
	}
	if _, err := flow.WaitSuccess(ctx, time.Now()); err != nil {
		return err
	}
	begun := time.Now()
	if err := change(); err != nil {
		return err
	}
	_, usable, err := watch.WaitAddress(ctx, to.prefix)
	if err != nil {
		return err
	}
	if err := p.waitMoored6(ctx, to.uplink, "nat66"); err != nil {
		return err
	}
	if err := waitSeen(ctx, flow, to); err != nil {
		return err
	}
	result := flow.Finish()
	at, ok := seenFrom(result, to.prefix, begun)
	if !ok {
		return fmt.Errorf("no answer by %s", to.uplink)
	}
	r.first.addMS(at.Sub(usable))
	r.gap.addMS(result.LongestGap())
	return nil
}
