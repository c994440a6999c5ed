package uplink

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"gangway/service/vnet"
)

// leastReserved is the shortest prefix length that a guest subnet has to keep clear of:
// shorter ones are default routes in parts, which everything overlaps.
const leastReserved = 8

// reservations lists the IPv4 prefixes that NetworkManager's profiles, VPNs, name servers and
// gateways take, sorted, each with its first owner. Routes and addresses in
// the kernel are not among them: plan sees those itself.
func reservations(pic *picture, list []vnet.Uplink) []vnet.Reservation {
	var out []vnet.Reservation
	add := func(p netip.Prefix, format string, args ...any) {
		p = p.Masked()
		if p.IsValid() && p.Addr().Is4() && p.Bits() >= leastReserved && !p.Addr().IsLoopback() && !p.Addr().IsUnspecified() {
			out = append(out, vnet.Reservation{Prefix: p, Owner: fmt.Sprintf(format, args...)})
		}
	}
	host := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

	for _, u := range list {
		add(host(u.Gateway4), "the gateway of %s", u.Interface)
		for _, a := range u.Nameservers {
			add(host(a), "a name server of %s", u.Interface)
		}
	}
	for _, e := range pic.dns {
		for _, a := range e.servers {
			add(host(a), "a name server of %s", cmp.Or(e.ifname, "the host"))
		}
	}
	for i := range pic.vpns {
		v := &pic.vpns[i]
		for _, r := range v.ip4.routes {
			add(r.dst, "a route of the VPN %q", v.id)
		}
		for _, a := range v.ip4.nameservers {
			add(host(a), "a name server of the VPN %q", v.id)
		}
	}
	for i := range pic.devices {
		d := &pic.devices[i]
		if !isControlled(d) || kindIn(list, d.name) != vnet.VPN {
			continue
		}
		for _, r := range d.ip4.routes {
			add(r.dst, "a route of the VPN %q", d.active.id)
		}
	}
	for _, p := range pic.profiles {
		for _, prefix := range p.prefixes {
			add(prefix, "NetworkManager's profile %q", p.id)
		}
	}
	slices.SortStableFunc(out, func(a, b vnet.Reservation) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()), cmp.Compare(a.Owner, b.Owner))
	})
	return slices.CompactFunc(out, func(a, b vnet.Reservation) bool { return a.Prefix == b.Prefix })
}
