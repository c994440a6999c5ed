package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"gangway/test/lab"
)

// ourProtocol marks the kernel's routes that are Gangway's (rtnetlink's rtm_protocol).
const ourProtocol = 147

// wifiAndDesk are an access point, which reflects multicast, and a plain Ethernet, which is preferred: neither can be bridged to.
func wifiAndDesk() []lab.SiteOptions {
	sites := bridges()
	for i := range sites {
		sites[i].Bridge, sites[i].HeedCarrier = "", false
	}
	sites[0].Uplink, sites[0].WiFi, sites[0].ReflectMulticast = "wlan0", true, true
	sites[1].Uplink = "eth0"
	return sites
}

// raiseProxied starts a lab whose guest has an address of the preferred link by proxy.
func raiseProxied(ctx context.Context, o lab.Options, within netip.Prefix) (*laptop, error) {
	p, err := raise(ctx, o, false)
	if err != nil {
		return nil, err
	}
	err = p.waitProperty(ctx, p.network, "Network.IPv6State", func(v any) bool { return v == "proxy" })
	if err == nil {
		_, err = p.guest.WaitIPv6(ctx, within)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// onWiFi is raiseProxied at the access point, the desk's cable unplugged.
func onWiFi(ctx context.Context, c config) (*laptop, error) {
	o := c.options()
	o.Sites = wifiAndDesk()
	o.Sites[1].Unplugged = true
	return raiseProxied(ctx, o, prefixA)
}

// silent adds a guest that has the addresses and a default router, and never said a word of them.
func (p *laptop) silent(ctx context.Context, name string, addresses []netip.Addr) (*lab.Guest, error) {
	g, err := p.mute(ctx, name)
	if err != nil {
		return nil, err
	}
	var bridge string
	if err := p.get(p.network, "Network.Bridge", &bridge); err != nil {
		return nil, err
	}
	self, err := p.Laptop.WaitAddress(ctx, bridge, linkLAN)
	if err != nil {
		return nil, err
	}
	var batch strings.Builder
	for _, a := range addresses {
		fmt.Fprintf(&batch, "addr add %s/128 dev %s nodad\n", a, lab.GuestInterface)
	}
	fmt.Fprintf(&batch, "route add default via %s dev %s\n", self, lab.GuestInterface)
	_, err = g.RunInput(ctx, batch.String(), "ip", "-6", "-batch", "-")
	return g, err
}

// mute adds a guest that has but a link-local address, without asking whether it is free.
func (p *laptop) mute(ctx context.Context, name string) (*lab.Guest, error) {
	g, err := p.AddGuestWith(ctx, name, lab.MachineOptions{Sysctl: map[string]string{"net.ipv6.conf.eth0.accept_ra": "0", "net.ipv6.conf.eth0.dad_transmits": "0"}})
	if err != nil {
		return nil, err
	}
	if err := p.call(ctx, p.network, "Network.Attach", g.Port, map[string]godbus.Variant{}).Err; err != nil {
		return nil, err
	}
	if err := g.WaitUp(ctx); err != nil {
		return nil, err
	}
	_, err = g.WaitIPv6(ctx, linkLAN)
	return g, err
}

func (p *laptop) get(path godbus.ObjectPath, property string, to any) error {
	v, err := p.bus.Object(busName, path).GetProperty(busName + "." + property)
	if err != nil {
		return err
	}
	return v.Store(to)
}

// number are so many addresses of the prefix, from one on.
func number(p netip.Prefix, first, count int) []netip.Addr {
	list := make([]netip.Addr, count)
	for i := range list {
		a := p.Masked().Addr().As16()
		a[14], a[15] = byte((first+i)>>8), byte(first+i)
		list[i] = netip.AddrFrom16(a)
	}
	return list
}

// known counts those of the addresses that the kernel routes to guests, and that it answers for on the uplink.
func (p *laptop) known(uplink string, addresses []netip.Addr) (routed, answered int, err error) {
	nl := p.Laptop.Netlink()
	link, err := nl.LinkByName(uplink)
	if err != nil {
		return 0, 0, err
	}
	want := make(map[netip.Addr]bool, len(addresses))
	for _, a := range addresses {
		want[a] = true
	}
	proxies, err := nl.NeighProxyList(link.Attrs().Index, netlink.FAMILY_V6)
	if err != nil {
		return 0, 0, err
	}
	for _, n := range proxies {
		if a, _ := netip.AddrFromSlice(n.IP); want[a] {
			answered++
		}
	}
	routes, err := nl.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Protocol: ourProtocol, Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		if a, _ := netip.AddrFromSlice(r.Dst.IP); want[a] {
			routed++
		}
	}
	return routed, answered, err
}

// waitKnown waits until the kernel has so many of the addresses, and returns when that was, to 10 ms.
func (p *laptop) waitKnown(ctx context.Context, uplink string, addresses []netip.Addr, count int) (time.Time, error) {
	err := wait(ctx, fmt.Sprintf("%d of %d addresses on %s", count, len(addresses), uplink), func() bool {
		routed, answered, err := p.known(uplink, addresses)
		return err == nil && routed == count && answered == count
	})
	return time.Now(), err
}

// refused tells what an access point refused since it was not the station's, which must be nothing.
func (p *laptop) refused(ctx context.Context) error {
	n, err := p.Site("a").Violations(ctx)
	if err == nil {
		fmt.Printf("  frames that the access point refused: %d (goal 0)\n", n)
	}
	return err
}
