package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"gangway/test/lab"
)

var (
	prefixA = netip.MustParsePrefix("2001:db8:a::/64")
	prefixB = netip.MustParsePrefix("2001:db8:b::/64")
	linkLAN = netip.MustParsePrefix("fe80::/10")
)

// bridges are two wired sites with radvd whose uplinks are bridges; b is preferred.
func bridges() []lab.SiteOptions {
	sites := []lab.SiteOptions{
		{Name: "a", Uplink: "eth1", Bridge: "br1", HeedCarrier: true, Metric: 200, IPv4: netip.MustParsePrefix("192.168.10.0/24"), IPv6: prefixA},
		{Name: "b", Uplink: "eth0", Bridge: "br0", HeedCarrier: true, Metric: 100, IPv4: netip.MustParsePrefix("10.20.0.0/24"), IPv6: prefixB},
	}
	for i := range sites {
		ra := lab.DefaultRA(sites[i].IPv6)
		sites[i].RA = &ra
	}
	return sites
}

// end6 is a link as its guests see it.
type end6 struct {
	bridge string
	prefix netip.Prefix
	router netip.Addr
	wire   *lab.Capture
}

func (p *laptop) end6(ctx context.Context, site string) (end6, error) {
	s := p.Site(site)
	router, err := s.Router.WaitAddress(ctx, s.IPv6Router().Interface, linkLAN)
	if err != nil {
		return end6{}, err
	}
	wire, err := p.Laptop.Capture(ctx, s.Uplink)
	return end6{bridge: s.Options.Bridge, prefix: s.Options.IPv6, router: router, wire: wire}, err
}

// prefer makes NetworkManager prefer one of two uplinks that are both up, as docking in does.
func (p *laptop) prefer(ctx context.Context, bridge string, metric string) error {
	_, err := p.NM.Cli(ctx, "device", "modify", bridge, "ipv4.route-metric", metric, "ipv6.route-metric", metric)
	return err
}

// switch6 moves the preference between two bridged links, both up, and back: what the guest knows of routers, when.
func switch6(ctx context.Context, c config) error {
	gone := &series{name: "guest: old default router gone, after NM's signal", unit: "ms", goal: "≤ 100"}
	came := &series{name: "guest: new default router there", unit: "ms", goal: "≤ 100"}
	usable := &series{name: "guest: new address usable", unit: "ms", goal: "≤ 1000"}
	floor := &series{name: "floor: plain station, from its router's RA to an address", unit: "ms"}
	moved := &series{name: "Gangway: from noticing to the last thing told", unit: "ms"}
	o := c.options()
	o.Sites = bridges()
	p, err := raise(ctx, o, false)
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.waitProperty(ctx, p.network, "Network.IPv6State", func(v any) bool { return v == "bridge" }); err != nil {
		return err
	}
	watch, err := p.guest.WatchIPv6(ctx)
	if err != nil {
		return err
	}
	defer watch.Close()
	station, err := p.Site("b").AddStation(ctx, "lan", lab.StationOptions{})
	if err != nil {
		return err
	}
	ends := map[bool]end6{}
	for toA, site := range map[bool]string{true: "a", false: "b"} {
		if ends[toA], err = p.end6(ctx, site); err != nil {
			return err
		}
	}
	if _, _, err := watch.WaitAddress(ctx, prefixB); err != nil {
		return err
	}
	for run := range c.runs {
		toA := run%2 == 0
		from, to := ends[!toA], ends[toA]
		// It has been there: its old address, which would be preferred again without any check, has to go.
		if _, err := p.guest.Run(ctx, "ip", "-6", "addr", "flush", "dev", lab.GuestInterface, "to", to.prefix.String()); err != nil {
			return err
		}
		if err := quiet(ctx); err != nil {
			return err
		}
		primary, err := p.watchPrimary()
		if err != nil {
			return err
		}
		metric := "50"
		if toA {
			metric = "300"
		}
		if err := p.prefer(ctx, "br0", metric); err != nil {
			return err
		}
		if err := p.waitMoored(ctx, to.bridge); err != nil {
			return err
		}
		signal, ok := primary()
		if !ok {
			return fmt.Errorf("NetworkManager did not announce a new primary connection")
		}
		at, err := watch.WaitNoRouter(ctx, from.router)
		if err != nil {
			return err
		}
		gone.addMS(at.Sub(signal))
		if at, err = watch.WaitRouter(ctx, to.router); err != nil {
			return err
		}
		came.addMS(at.Sub(signal))
		if _, at, err = watch.WaitAddress(ctx, to.prefix); err != nil {
			return err
		}
		usable.addMS(at.Sub(signal))
		took, err := plainStation(ctx, station)
		if err != nil {
			return err
		}
		floor.addMS(took)
		if detected, done, ok := p.told(to.bridge); ok {
			moved.addMS(done - detected)
		}
	}
	foreign, strange := 0, 0
	for toA, e := range ends {
		foreign += e.wire.Count(lab.FromMAC(p.guest.MAC), func(f lab.Frame) bool { return f.EtherType() != lab.EtherIPv6 })
		strange += e.wire.Count(lab.RAWith(ends[!toA].prefix)) + e.wire.Count(lab.IsRA, lab.Outgoing)
	}
	table("Change of the active link between two bridges, both up", gone, came, usable, usable.by(0.95, "≤ 2000"), floor, moved)
	fmt.Printf("  frames other than IPv6 from the guest on the uplinks: %d; advertisements of one link on the other, or sent by the laptop: %d\n", foreign, strange)
	return nil
}

// plainStation has an ordinary station come to the link anew, and returns what it needs from the first advertisement that
// it hears to an address that it may use.
func plainStation(ctx context.Context, st *lab.Station) (time.Duration, error) {
	if _, err := st.Run(ctx, "sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1"); err != nil {
		return 0, err
	}
	watch, err := st.WatchIPv6(ctx)
	if err != nil {
		return 0, err
	}
	defer watch.Close()
	heard, err := st.Capture(ctx, lab.GuestInterface)
	if err != nil {
		return 0, err
	}
	defer heard.Close()
	if _, err := st.Run(ctx, "sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=0"); err != nil {
		return 0, err
	}
	_, at, err := watch.WaitAddress(ctx, prefixB)
	if err != nil {
		return 0, err
	}
	ra, err := heard.Wait(ctx, lab.IsRA)
	return at.Sub(ra.Time), err
}

// probes6 has guest and laptop ask the internet by IPv6 every 5 ms, and returns when both are answered and nothing else goes on.
func (p *laptop) probes6(ctx context.Context) (guest, laptop *lab.Probe, err error) {
	fast := lab.ProbeOptions{Interval: 5 * time.Millisecond, Timeout: 400 * time.Millisecond}
	if guest, err = p.guest.ProbeSockets(ctx, lab.EchoIPv6, fast); err != nil {
		return nil, nil, err
	}
	if laptop, err = p.Laptop.ProbeSockets(ctx, lab.EchoIPv6, fast); err != nil {
		return nil, nil, err
	}
	for _, probe := range []*lab.Probe{guest, laptop} {
		if _, err := probe.WaitSuccess(ctx, time.Now()); err != nil {
			return nil, nil, err
		}
	}
	return guest, laptop, quiet(ctx)
}

// unplug6 pulls the cable of the active one of two bridged links.
func unplug6(ctx context.Context, c config) error {
	gone := &series{name: "guest: old default router gone, after the cable was pulled", unit: "ms", goal: "≤ 400"}
	usable := &series{name: "guest: new address usable", unit: "ms"}
	answer := &series{name: "guest: first answer from the internet by IPv6", unit: "ms"}
	host := &series{name: "host: IPv6 blackout", unit: "ms"}
	o := c.options()
	o.Sites = bridges()
	p, err := raise(ctx, o, false)
	if err != nil {
		return err
	}
	defer p.Close()
	watch, err := p.guest.WatchIPv6(ctx)
	if err != nil {
		return err
	}
	defer watch.Close()
	b, err := p.end6(ctx, "b")
	if err != nil {
		return err
	}
	for range c.runs {
		if _, _, err := watch.WaitAddress(ctx, prefixB); err != nil {
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
		at, err := watch.WaitNoRouter(ctx, b.router)
		if err != nil {
			return err
		}
		gone.addMS(at.Sub(begun))
		if _, at, err = watch.WaitAddress(ctx, prefixA); err != nil {
			return err
		}
		usable.addMS(at.Sub(begun))
		if err := p.waitMoored(ctx, "br1"); err != nil {
			return err
		}
		for _, probe := range []*lab.Probe{guest, laptop} {
			if _, err := probe.WaitSuccess(ctx, time.Now()); err != nil {
				return err
			}
		}
		answer.addMS(guest.Finish().Blackout(begun))
		host.addMS(laptop.Finish().Blackout(begun))
		if err := p.Site("b").Plug(); err != nil {
			return err
		}
		if err := p.waitMoored(ctx, "br0"); err != nil {
			return err
		}
	}
	table("Unplug: the active bridge's cable is pulled, another bridge is up", gone, usable, answer, host)
	return nil
}
