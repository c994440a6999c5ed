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
