package link

import (
	"net/netip"

	"gangway/service/vnet"

	"golang.org/x/sys/unix"
)

// parseLink reads the body of a RTM_NEWLINK. It is false for wireless events, which come as
// such a message but describe nothing beyond the name (net/wireless/wext-core.c).
func parseLink(b []byte) (l vnet.Link, ok bool) {
	if len(b) < unix.SizeofIfInfomsg {
		return l, false
	}
	flags := native.Uint32(b[8:])
	l = vnet.Link{
		Type: native.Uint16(b[2:]), Index: int(int32(native.Uint32(b[4:]))),
		Up: flags&unix.IFF_UP != 0, Carrier: flags&unix.IFF_LOWER_UP != 0,
		PointToPoint: flags&unix.IFF_POINTOPOINT != 0, Loopback: flags&unix.IFF_LOOPBACK != 0,
	}
	for a := range attributes(b[unix.SizeofIfInfomsg:]) {
		switch a.kind {
		case unix.IFLA_IFNAME:
			l.Name = a.text()
		case unix.IFLA_ADDRESS:
			l.MAC = hardwareAddress(a.value)
		case unix.IFLA_MTU:
			l.MTU = int(a.u32())
		case unix.IFLA_MASTER:
			l.Master = int(a.u32())
		case unix.IFLA_IFALIAS:
			l.Alias = a.text()
		case unix.IFLA_GROUP:
			l.Group = a.u32()
		case unix.IFLA_STATS64: // struct rtnl_link_stats64: rx_packets, tx_packets, rx_bytes, tx_bytes
			if len(a.value) >= 32 {
				l.RxBytes, l.TxBytes = native.Uint64(a.value[16:]), native.Uint64(a.value[24:])
			}
		case unix.IFLA_LINKINFO:
			parseLinkInfo(a.value, &l)
		case unix.IFLA_WIRELESS:
			return l, false
		case unix.IFLA_PROTINFO: // of the bridge's own messages (AF_BRIDGE)
			parsePort(a.value, &l)
		}
	}
	return l, l.Name != ""
}

func parseLinkInfo(b []byte, l *vnet.Link) {
	var data, port []byte
	bridgePort := false
	for a := range attributes(b) {
		switch a.kind {
		case unix.IFLA_INFO_KIND:
			l.Kind = kindName(a.bytesOfText())
		case unix.IFLA_INFO_DATA:
			data = a.value
		case unix.IFLA_INFO_SLAVE_KIND:
			bridgePort = string(a.bytesOfText()) == "bridge"
		case unix.IFLA_INFO_SLAVE_DATA:
			port = a.value
		}
	}
	if l.Kind == "bridge" {
		for a := range attributes(data) {
			if a.kind == unix.IFLA_BR_MCAST_SNOOPING {
				l.MulticastSnooping = a.u8() != 0
			}
		}
	}
	if bridgePort {
		parsePort(port, l)
	}
}

func parsePort(b []byte, l *vnet.Link) {
	for a := range attributes(b) {
		if a.kind == unix.IFLA_BRPORT_ISOLATED {
			l.Isolated = a.u8() != 0
		}
	}
}

// kindName spares an allocation for the usual ones.
func kindName(b []byte) string {
	switch string(b) {
	case "bridge":
		return "bridge"
	case "veth":
		return "veth"
	case "tun":
		return "tun"
	}
	return string(b)
}

// hardwareAddress is "" for lengths that tunnels use for IP addresses.
func hardwareAddress(b []byte) string {
	if len(b) != 6 && len(b) != 8 && len(b) != 20 { // Ethernet, EUI-64, InfiniBand
		return ""
	}
	const digits = "0123456789abcdef"
	text := make([]byte, 0, 20*3)
	for i, c := range b {
		if i > 0 {
			text = append(text, ':')
		}
		text = append(text, digits[c>>4], digits[c&15])
	}
	return string(text)
}

// parseAddress reads the body of a RTM_NEWADDR or RTM_DELADDR.
func parseAddress(b []byte) (vnet.Address, bool) {
	if len(b) < unix.SizeofIfAddrmsg {
		return vnet.Address{}, false
	}
	bits, flags := int(b[1]), uint32(b[2])
	a := vnet.Address{Scope: b[3], Link: int(native.Uint32(b[4:]))}
	var address, local netip.Addr
	for at := range attributes(b[unix.SizeofIfAddrmsg:]) {
		switch at.kind {
		case unix.IFA_ADDRESS:
			address = at.addr()
		case unix.IFA_LOCAL:
			local = at.addr()
		case unix.IFA_FLAGS:
			flags = at.u32()
		}
	}
	a.Tentative = flags&unix.IFA_F_TENTATIVE != 0
	a.Deprecated = flags&unix.IFA_F_DEPRECATED != 0
	// IFA_ADDRESS is the peer where there is one, else the same as IFA_LOCAL, which IPv6
	// leaves out (linux/if_addr.h).
	switch {
	case !local.IsValid():
		a.Prefix = netip.PrefixFrom(address, bits)
	case !address.IsValid() || local == address:
		a.Prefix = netip.PrefixFrom(local, bits)
	default:
		a.Prefix, a.Peer = netip.PrefixFrom(local, bits), netip.PrefixFrom(address, bits)
	}
	return a, a.Prefix.IsValid()
}

// parseRoute reads the body of a RTM_NEWROUTE and appends the route to list, a multipath
// route as one for each of its next hops. Routes that are only cached are left out.
func parseRoute(b []byte, list []vnet.Route) []vnet.Route {
	if len(b) < unix.SizeofRtMsg || b[0] != unix.AF_INET {
		return list
	}
	flags := native.Uint32(b[8:])
	if flags&unix.RTM_F_CLONED != 0 {
		return list
	}
	r := vnet.Route{Table: uint32(b[4]), Protocol: b[5], Scope: b[6], Type: b[7],
		OnLink: flags&unix.RTNH_F_ONLINK != 0}
	dst := netip.IPv4Unspecified()
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

// parseRule reads the body of a RTM_NEWRULE.
func parseRule(b []byte) (r vnet.Rule, ok bool) {
	if len(b) < sizeofFibRuleHdr || b[0] != unix.AF_INET {
		return r, false
	}
	flags := native.Uint32(b[8:])
	r = vnet.Rule{Table: uint32(b[4]), SuppressPrefixLength: -1}
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
