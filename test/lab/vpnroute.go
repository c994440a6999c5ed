package lab

import (
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

const (
	vpnTable  = 51820 // and firewall mark, as wg-quick's first
	vpnMetric = 50
)

// routing is a change of the laptop's routing, and its opposite.
type routing struct{ do, undo func() error }

// routing lists what the VPN's style takes, in an order in which packets take the new way at the last change of their family.
func (v *VPN) routing(link int) (changes []routing) {
	nl := v.lab.Laptop.nl
	for _, own := range v.addresses() {
		everywhere, family := netip.PrefixFrom(netip.IPv4Unspecified(), 0), netlink.FAMILY_V4
		if own.Addr().Is6() {
			everywhere, family = netip.PrefixFrom(netip.IPv6Unspecified(), 0), netlink.FAMILY_V6
		}
		add := func(to netip.Prefix, r netlink.Route) {
			r.LinkIndex, r.Dst = link, &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), to.Addr().BitLen())}
			if to.Addr().Is4() {
				r.Scope = netlink.SCOPE_LINK
			}
			changes = append(changes, routing{func() error { return nl.RouteAdd(&r) }, func() error { return nl.RouteDel(&r) }})
		}
		switch v.Options.Style {
		case VPNMetric:
			add(everywhere, netlink.Route{Priority: vpnMetric})
		case VPNHalves:
			low, high := halves(everywhere)
			add(low, netlink.Route{})
			add(high, netlink.Route{})
		case VPNRules:
			add(everywhere, netlink.Route{Table: vpnTable})
			changes = append(changes, v.rules(family)...)
		}
	}
	return changes
}

// rules are the policy rules of wg-quick, which adds them in this order: the second comes to lie before the first.
func (v *VPN) rules(family int) (changes []routing) {
	nl := v.lab.Laptop.nl
	unmarked, known := netlink.NewRule(), netlink.NewRule()
	unmarked.Mark, unmarked.Invert, unmarked.Table = vpnTable, true, vpnTable
	known.Table, known.SuppressPrefixlen = 254, 0 // main
	for _, r := range []*netlink.Rule{unmarked, known} {
		r.Family = family
		changes = append(changes, routing{func() error { return nl.RuleAdd(r) }, func() error { return nl.RuleDel(r) }})
	}
	return changes
}

// halves splits the prefix of everything.
func halves(everything netip.Prefix) (low, high netip.Prefix) {
	top := everything.Addr().AsSlice()
	top[0] = 0x80
	upper, _ := netip.AddrFromSlice(top) // its length is right
	return netip.PrefixFrom(everything.Addr(), 1), netip.PrefixFrom(upper, 1)
}
