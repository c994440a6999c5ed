package main

import (
	"context"
	"net/netip"
	"time"

	"gangway/test/lab"
)

// throughput6 sends to a station of the LAN, in turns, from a guest by the IPv6-only link, from one on a plain bridge that a plain
// veth pair joins to the uplink's (the same path, without us), and from one whose port is in the uplink's bridge itself.
func throughput6(ctx context.Context, c config) error {
	by := &series{name: "guest on gway0, by the IPv6-only link", unit: "Gb/s"}
	plain := &series{name: "guest on a plain bridge, joined by a plain veth pair", unit: "Gb/s"}
	direct := &series{name: "guest on the uplink's bridge itself", unit: "Gb/s"}
	ratio := &series{name: "ratio to the plain bridge, paired", unit: "", goal: "≥ 0.95"}
	hop := &series{name: "ratio to the uplink's bridge itself, paired", unit: ""}
	o := c.options()
	o.Sites = bridges()[1:]
	p, err := raise(ctx, o, false)
	if err != nil {
		return err
	}
	defer p.Close()
	if _, err := p.guest.WaitIPv6(ctx, prefixB); err != nil {
		return err
	}
	if _, err := p.Laptop.Run(ctx, "sh", "-c", `ip link add plain0 type bridge mcast_snooping 0; ip link add plain1 type veth peer plain2
		ip link set plain1 master plain0; ip link set plain2 master br0; for l in plain0 plain1 plain2; do ip link set $l up; done`); err != nil {
		return err
	}
	guests := []*lab.Guest{p.guest}
	for bridge, name := range map[string]string{"plain0": "plain", "br0": "direct"} {
		g, err := p.AddGuest(ctx, name)
		if err != nil {
			return err
		}
		if err := g.AttachTo(bridge); err != nil {
			return err
		}
		if _, err := g.WaitIPv6(ctx, prefixB); err != nil {
			return err
		}
		guests = append(guests, g)
	}
	station, err := p.Site("b").AddStation(ctx, "lan", lab.StationOptions{})
	if err != nil {
		return err
	}
	to, err := station.WaitIPv6(ctx, prefixB)
	if err != nil {
		return err
	}
	for run := range 4 * c.runs { // one says little: they differ by a tenth from one to the next
		rates := map[string]float64{}
		for i := range guests {
			g := guests[(i+run)%len(guests)]
			if rates[g.Name], err = lab.Throughput(ctx, g.Host, station.Host, to, 600*time.Millisecond); err != nil {
				return err
			}
		}
		ours := rates[p.guest.Name]
		by.add(ours / 1e9)
		plain.add(rates["guest-plain"] / 1e9)
		direct.add(rates["guest-direct"] / 1e9)
		ratio.add(ours / rates["guest-plain"])
		hop.add(ours / rates["guest-direct"])
	}
	table("TCP over IPv6 from a guest to a station of the LAN, in turns", by, plain, direct, ratio, hop)
	return nil
}

// proxyThroughput sends to the internet, in turns, by IPv6 and by IPv4: from a guest, which is proxied and translated, and from the
// laptop itself, which is neither: what differs there is the families' own.
func proxyThroughput(ctx context.Context, c config) error {
	six := &series{name: "guest, IPv6 by proxy", unit: "Gb/s"}
	four := &series{name: "guest, IPv4 by NAT", unit: "Gb/s"}
	ratio := &series{name: "ratio of the guest's IPv6 to its IPv4, paired", unit: "", goal: "≥ 0.95"}
	own := &series{name: "ratio of the laptop's own IPv6 to its IPv4, paired", unit: ""}
	o := c.options()
	o.Sites = wifiAndDesk()[1:]
	p, err := raiseProxied(ctx, o, prefixB)
	if err != nil {
		return err
	}
	defer p.Close()
	type way struct {
		from *lab.Host
		to   netip.Addr
	}
	ways := []way{{p.guest.Host, lab.InternetIPv6}, {p.guest.Host, lab.InternetIPv4}, {p.Laptop, lab.InternetIPv6}, {p.Laptop, lab.InternetIPv4}}
	for run := range 4 * c.runs {
		rates := map[way]float64{}
		for i := range ways {
			w := ways[(i+run)%len(ways)]
			if rates[w], err = lab.Throughput(ctx, w.from, p.Internet.Host, w.to, 600*time.Millisecond); err != nil {
				return err
			}
		}
		six.add(rates[ways[0]] / 1e9)
		four.add(rates[ways[1]] / 1e9)
		ratio.add(rates[ways[0]] / rates[ways[1]])
		own.add(rates[ways[2]] / rates[ways[3]])
	}
	table("TCP from a guest to the internet by plain Ethernet, in turns", six, four, ratio, own)
	return nil
}
