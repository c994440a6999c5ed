package link

import (
	"net/netip"

	"gangway/service/vnet"

	"golang.org/x/sys/unix"
)

// parseRoute reads the body of a RTM_NEWROUTE of the family and appends the route to list, a multipath
// route as one for each of its next hops. Left out are routes of another family, those that are only
// cached, and those for some sources alone, which our type can't express (and which IPv6 alone has).
func parseRoute(b []byte, family uint8, list []vnet.Route) []vnet.Route {
	if len(b) < unix.SizeofRtMsg || b[0] != family || b[2] != 0 {
		return list
	}
	flags := native.Uint32(b[8:])
	if flags&unix.RTM_F_CLONED != 0 {
		return list
	}
	r := vnet.Route{Table: uint32(b[4]), Protocol: b[5], Scope: b[6], Type: b[7],
		OnLink: flags&unix.RTNH_F_ONLINK != 0}
	dst := netip.IPv4Unspecified()
	if family == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	var hops []byte
	for a := range attributes(b[unix.SizeofRtMsg:]) {
		switch a.kind {
		case unix.RTA_TABLE:
			r.Table = a.u32()
		case unix.RTA_DST:
			dst = a.addr()
		case unix.RTA_GATEWAY:
			r.Gateway = a.addr()
		case unix.RTA_VIA: // an IPv6 next hop (RFC 8950)
			r.Gateway = a.via()
		case unix.RTA_OIF:
			r.Link = int(a.u32())
		case unix.RTA_PREFSRC:
			r.Source = a.addr()
		case unix.RTA_PRIORITY:
			r.Metric = a.u32()
		case unix.RTA_MULTIPATH:
			hops = a.value
		}
	}
	r.Dst = netip.PrefixFrom(dst, int(b[1]))
	if family == unix.AF_INET6 && r.Type != vnet.RouteUnicast {
		r.Link = 0 // lo, which has nothing to do with it
	}
	if hops == nil {
		return append(list, r)
	}
	for len(hops) >= unix.SizeofRtNexthop {
		n := int(native.Uint16(hops))
		if n < unix.SizeofRtNexthop || n > len(hops) {
			break
		}
		hop := r
		hop.OnLink = hops[2]&unix.RTNH_F_ONLINK != 0
		hop.Link = int(native.Uint32(hops[4:]))
		for a := range attributes(hops[unix.SizeofRtNexthop:n]) {
			switch a.kind {
			case unix.RTA_GATEWAY:
				hop.Gateway = a.addr()
			case unix.RTA_VIA:
				hop.Gateway = a.via()
			}
		}
		list = append(list, hop)
		hops = hops[min(align(n), len(hops)):]
	}
	return list
}

// sizeofFibRuleHdr is struct fib_rule_hdr's (linux/fib_rules.h), the same as rtmsg's.
const sizeofFibRuleHdr = 12

// parseRule reads the body of a RTM_NEWRULE of the family.
func parseRule(b []byte, family uint8) (r vnet.Rule, ok bool) {
	if len(b) < sizeofFibRuleHdr || b[0] != family {
		return r, false
	}
	flags := native.Uint32(b[8:])
	r = vnet.Rule{IPv6: family == unix.AF_INET6, Table: uint32(b[4]), SuppressPrefixLength: -1}
	// Prefix lengths, TOS, an action other than a look-up, and "not" are beyond our type.
	r.Foreign = b[1] != 0 || b[2] != 0 || b[3] != 0 || b[7] != unix.FR_ACT_TO_TBL || flags&unix.FIB_RULE_INVERT != 0
	for a := range attributes(b[sizeofFibRuleHdr:]) {
		switch a.kind {
		case unix.FRA_PRIORITY:
			r.Priority = int(a.u32())
		case unix.FRA_IIFNAME:
			r.IIF = a.text()
		case unix.FRA_TABLE:
			r.Table = a.u32()
		case unix.FRA_SUPPRESS_PREFIXLEN:
			r.SuppressPrefixLength = int(int32(a.u32()))
		case unix.FRA_PROTOCOL:
			r.Protocol = a.u8()
		case unix.FRA_PAD:
		default: // marks, ports, users, output interfaces and what is yet to be invented
			r.Foreign = true
		}
	}
	return r, true
}
