package lab

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
)

// Next headers of IPv6 and types of ICMPv6 that tests speak of (RFC 8200 4, RFC 4861 4, RFC 2710, RFC 3810).
const (
	protoHopByHop  = 0
	protoTCP       = 6
	protoUDP       = 17
	protoRouting   = 43
	protoFragment  = 44
	protoAH        = 51
	protoICMPv6    = 58
	protoNoNext    = 59
	protoDstOpts   = 60
	ipv6HeaderSize = 40
	etherSize      = 14

	EchoRequest6         = 128
	EchoReply6           = 129
	RouterSolicitation   = 133
	RouterAdvertisement  = 134
	NeighborSolicitation = 135
	NeighborAdvert       = 136
	Redirect6            = 137
)

// AllNodes and AllRouters are the link's multicast addresses (RFC 4291 2.7.1).
var (
	AllNodes   = netip.MustParseAddr("ff02::1")
	AllRouters = netip.MustParseAddr("ff02::2")
)

// Ethernet builds a frame. No padding is added: the lab's cables carry short frames.
func Ethernet(dst, src net.HardwareAddr, etherType uint16, payload []byte) []byte {
	return append(binary.BigEndian.AppendUint16(append(slices.Clone(dst), src...), etherType), payload...)
}

// Tagged puts a VLAN tag (IEEE 802.1Q) of that ID, 0 to 4095, into an Ethernet frame.
func Tagged(frame []byte, vlan uint16) []byte {
	return slices.Insert(slices.Clone(frame), 12, 0x81, 0, byte(vlan>>8), byte(vlan))
}

// IPv6 builds a packet (RFC 8200 3). next is the protocol of the payload, or its first extension header.
func IPv6(src, dst netip.Addr, next, hopLimit uint8, payload []byte) []byte {
	b := []byte{0x60, 0, 0, 0, byte(len(payload) >> 8), byte(len(payload)), next, hopLimit}
	return append(append(append(b, src.AsSlice()...), dst.AsSlice()...), payload...)
}

// Extension builds an extension header of hop-by-hop, routing or destination options (RFC 8200 4.3): next, its length, and the
// body padded by zeroes, which are Pad1 options.
func Extension(next uint8, body []byte) []byte {
	size := (2 + len(body) + 7) / 8 * 8
	return append(append([]byte{next, byte(size/8 - 1)}, body...), make([]byte, size-2-len(body))...)
}

// Fragment builds a fragment header before a part of a packet (RFC 8200 4.5). offset is in bytes, a multiple of 8.
func Fragment(next uint8, offset int, more bool, id uint32, part []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{next, 0}, uint16(offset))
	if more {
		b[3] |= 1
	}
	return append(binary.BigEndian.AppendUint32(b, id), part...)
}

// ICMPv6 builds a message with its checksum (RFC 4443 2.1); body is what follows the checksum.
func ICMPv6(src, dst netip.Addr, kind, code uint8, body []byte) []byte {
	b := append([]byte{kind, code, 0, 0}, body...)
	binary.BigEndian.PutUint16(b[2:], checksum(src, dst, protoICMPv6, b))
	return b
}

// UDPv6 builds a datagram with its checksum (RFC 768, RFC 8200 8.1).
func UDPv6(src, dst netip.AddrPort, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, src.Port()), dst.Port())
	b = append(binary.BigEndian.AppendUint32(b, uint32(8+len(payload))<<16), payload...)
	sum := checksum(src.Addr(), dst.Addr(), protoUDP, b)
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[6:], sum)
	return b
}

// NeighborMessage builds a solicitation or an advertisement (RFC 4861 4.3, 4.4) as an IPv6 packet of hop limit 255. flags are the
// first byte behind the checksum: 0x80 router, 0x40 solicited, 0x20 override. A nil lla leaves the option out.
func NeighborMessage(src, dst netip.Addr, kind, flags uint8, target netip.Addr, lla net.HardwareAddr) []byte {
	body := append([]byte{flags, 0, 0, 0}, target.AsSlice()...)
	if lla != nil {
		option := byte(optSourceLLA)
		if kind == NeighborAdvert {
			option = optTargetLLA
		}
		body = append(append(body, option, 1), lla...)
	}
	return IPv6(src, dst, protoICMPv6, 255, ICMPv6(src, dst, kind, 0, body))
}

// checksum is the Internet checksum with IPv6's pseudo-header (RFC 8200 8.1); the field itself must be zero.
func checksum(src, dst netip.Addr, proto uint8, b []byte) uint16 {
	sum := uint32(proto) + uint32(len(b))
	for _, part := range [][]byte{src.AsSlice(), dst.AsSlice(), b} {
		for i, c := range part {
			if i%2 == 0 {
				sum += uint32(c) << 8
			} else {
				sum += uint32(c)
			}
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// MulticastMAC is where a multicast packet goes on Ethernet (RFC 2464 7).
func MulticastMAC(dst netip.Addr) net.HardwareAddr {
	a := dst.As16()
	return net.HardwareAddr{0x33, 0x33, a[12], a[13], a[14], a[15]}
}

// SolicitedNode is the multicast address at which neighbours ask for an address (RFC 4291 2.7.1).
func SolicitedNode(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// SLAAC is the address that an interface with that MAC derives within a /64 (RFC 4291 appendix A).
func SLAAC(within netip.Prefix, mac net.HardwareAddr) netip.Addr {
	a := within.Masked().Addr().As16()
	copy(a[8:], []byte{mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
	return netip.AddrFrom16(a)
}

// LinkLocal is the link-local address of an interface with that MAC.
func LinkLocal(mac net.HardwareAddr) netip.Addr { return SLAAC(linkLocal64, mac) }

var linkLocal64 = netip.MustParsePrefix("fe80::/64")
