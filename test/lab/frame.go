package lab

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Types of Ethernet frames.
const (
	EtherIPv4 uint16 = unix.ETH_P_IP
	EtherIPv6 uint16 = unix.ETH_P_IPV6
	EtherARP  uint16 = unix.ETH_P_ARP
	EtherVLAN uint16 = unix.ETH_P_8021Q
)

// Frame is one Ethernet frame as an interface saw it.
type Frame struct {
	Time     time.Time
	Outgoing bool   // the host sent it; otherwise it came in
	Length   int    // on the wire, without checksum
	Data     []byte // from the Ethernet header on, VLAN tag included: 256 bytes, but IPv6 that is neither TCP nor UDP is whole
}

// Dst and Src are the MAC addresses.
func (f Frame) Dst() net.HardwareAddr { return net.HardwareAddr(f.Data[0:6]) }
func (f Frame) Src() net.HardwareAddr { return net.HardwareAddr(f.Data[6:12]) }

// EtherType is EtherIPv4 and so on.
func (f Frame) EtherType() uint16 { return binary.BigEndian.Uint16(f.Data[12:]) }

// SrcIP and DstIP are the addresses of an IP packet, or of ARP's sender and target; invalid for the rest.
func (f Frame) SrcIP() netip.Addr { return f.addr(26, 22, 28) }
func (f Frame) DstIP() netip.Addr { return f.addr(30, 38, 38) }

func (f Frame) addr(v4, v6, arp int) netip.Addr {
	at, size := 0, 4
	switch f.EtherType() {
	case EtherIPv4:
		at = v4
	case EtherIPv6:
		at, size = v6, 16
	case EtherARP:
		at = arp
	}
	if at == 0 || len(f.Data) < at+size {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(f.Data[at : at+size]) // the length is right
	return a
}

// Protocol is the IP protocol, or IPv6's first next header; -1 for what is not IP.
func (f Frame) Protocol() int {
	switch {
	case f.EtherType() == EtherIPv4 && len(f.Data) > 23:
		return int(f.Data[23])
	case f.EtherType() == EtherIPv6 && len(f.Data) > 20:
		return int(f.Data[20])
	}
	return -1
}

// Upper6 is what an IPv6 packet carries behind its extension headers.
type Upper6 struct {
	Protocol int // -1 if the chain of headers goes beyond the packet, or beyond its first fragment
	HopLimit uint8
	// Extensions are the headers passed, in order; Fragmented tells whether a fragment header was among them, and
	// Later that it is not the first fragment, so that there is no upper header in it.
	Extensions        []uint8
	Fragmented, Later bool
	Data              []byte // from the upper header on
}

// Upper6 walks the extension headers of an IPv6 packet (RFC 8200 4, RFC 4302 2); false for other frames.
func (f Frame) Upper6() (Upper6, bool) {
	if f.EtherType() != EtherIPv6 || len(f.Data) < etherSize+ipv6HeaderSize {
		return Upper6{}, false
	}
	u := Upper6{Protocol: int(f.Data[20]), HopLimit: f.Data[21], Data: f.Data[etherSize+ipv6HeaderSize:]}
	for {
		size := 0
		switch u.Protocol {
		case protoHopByHop, protoRouting, protoDstOpts, 135, 139, 140, protoAH:
			if len(u.Data) >= 2 {
				size = 8 + 8*int(u.Data[1])
			}
			if u.Protocol == protoAH {
				size = size/2 + 4 // counted in words
			}
		case protoFragment:
			size = 8
			if len(u.Data) >= size {
				u.Fragmented, u.Later = true, binary.BigEndian.Uint16(u.Data[2:])&^7 != 0
			}
		default:
			return u, true
		}
		u.Extensions = append(u.Extensions, uint8(u.Protocol))
		if size == 0 || len(u.Data) < size || u.Later {
			u.Protocol = -1
			return u, true
		}
		u.Protocol, u.Data = int(u.Data[0]), u.Data[size:]
	}
}

// ICMPv6Type is the type of an ICMPv6 message, behind whatever extension headers; -1 for the rest.
func (f Frame) ICMPv6Type() int {
	if u, ok := f.Upper6(); ok && u.Protocol == protoICMPv6 && len(u.Data) >= 4 {
		return int(u.Data[0])
	}
	return -1
}

// Neighbor is a neighbour discovery message about an address: solicitation, advertisement or redirect.
type Neighbor struct {
	Type   int
	Flags  uint8 // of an advertisement: 0x80 router, 0x40 solicited, 0x20 override
	Target netip.Addr
	// SourceLLA and TargetLLA are the options of that name, Nonce that of RFC 3971 5.3.2; nil if absent.
	SourceLLA, TargetLLA net.HardwareAddr
	Nonce                []byte
}

// Neighbor reads a neighbour discovery message; false for other frames.
func (f Frame) Neighbor() (Neighbor, bool) {
	n := Neighbor{Type: f.ICMPv6Type()}
	if n.Type < NeighborSolicitation || n.Type > Redirect6 {
		return Neighbor{}, false
	}
	u, _ := f.Upper6()
	if len(u.Data) < 24 {
		return Neighbor{}, false
	}
	n.Flags, n.Target = u.Data[4], netip.AddrFrom16([16]byte(u.Data[8:]))
	rest := u.Data[24:]
	if n.Type == Redirect6 {
		rest = rest[min(16, len(rest)):]
	}
	for kind, body := range ndOptions(rest) {
		switch {
		case kind == optSourceLLA && len(body) >= 6:
			n.SourceLLA = net.HardwareAddr(body[:6])
		case kind == optTargetLLA && len(body) >= 6:
			n.TargetLLA = net.HardwareAddr(body[:6])
		case kind == optNonce:
			n.Nonce = body
		}
	}
	return n, true
}

// RA reads a router advertisement; false for other frames, and for one that is malformed.
func (f Frame) RA() (RA, bool) {
	if f.ICMPv6Type() != RouterAdvertisement {
		return RA{}, false
	}
	u, _ := f.Upper6()
	ra, err := ParseRA(u.Data)
	return ra, err == nil
}

// UDPPorts are the ports of a UDP datagram over IPv4 or IPv6, behind whatever extension headers; zero for the rest.
func (f Frame) UDPPorts() (src, dst uint16) {
	var b []byte
	if u, ok := f.Upper6(); ok && u.Protocol == protoUDP {
		b = u.Data
	} else if f.EtherType() == EtherIPv4 && f.Protocol() == protoUDP {
		b = f.Data[min(len(f.Data), etherSize+4*int(f.Data[etherSize]&15)):]
	}
	if len(b) < 4 {
		return 0, 0
	}
	return binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
}
