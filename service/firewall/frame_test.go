package firewall

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// layer makes a header in front of the layers behind it; next is what stands directly behind.
type layer struct {
	protocol byte
	build    func(next byte, rest []byte) []byte
}

// packet builds an IPv6 packet from an address to another of the layers.
func packet(from, to string, layers ...layer) []byte {
	protocol, rest := stack(layers)
	b := make([]byte, 40, 40+len(rest))
	b[0], b[6], b[7] = 0x60, protocol, 255
	binary.BigEndian.PutUint16(b[4:], uint16(len(rest)))
	source, destination := netip.MustParseAddr(from).As16(), netip.MustParseAddr(to).As16()
	copy(b[8:], source[:])
	copy(b[24:], destination[:])
	return append(b, rest...)
}

func stack(layers []layer) (protocol byte, rest []byte) {
	next := byte(unix.IPPROTO_NONE)
	for i := len(layers) - 1; i >= 0; i-- {
		rest = layers[i].build(next, rest)
		next = layers[i].protocol
	}
	return next, rest
}

// behind is an extension header of that many units of eight bytes.
func behind(protocol byte, units int) layer {
	return layer{protocol, func(next byte, rest []byte) []byte {
		b := make([]byte, 8*units, 8*units+len(rest))
		b[0], b[1] = next, byte(units-1)
		if protocol == unix.IPPROTO_AH {
			b[1] = byte(2*units - 2) // in units of four, less two
		} else if n := 8*units - 4; protocol != unix.IPPROTO_ROUTING {
			b[2], b[3] = 1, byte(min(n, 255)) // PadN
		}
		return append(b, rest...)
	}}
}

func hopByHop() layer       { return behind(unix.IPPROTO_HOPOPTS, 1) }
func dstOpts() layer        { return behind(unix.IPPROTO_DSTOPTS, 1) }
func routingHeader() layer  { return behind(unix.IPPROTO_ROUTING, 1) }
func authentication() layer { return behind(unix.IPPROTO_AH, 2) }

// fragment is a fragment header; offset counts bytes.
func fragment(offset int, more bool) layer { return fragmentOf(-1, offset, more) }

// fragmentOf is one whose next header is given, unless negative.
func fragmentOf(protocol int, offset int, more bool) layer {
	return layer{unix.IPPROTO_FRAGMENT, func(next byte, rest []byte) []byte {
		b := make([]byte, 8, 8+len(rest))
		b[0] = next
		if protocol >= 0 {
			b[0] = byte(protocol)
		}
		position := uint16(offset)
		if more {
			position |= 1
		}
		binary.BigEndian.PutUint16(b[2:], position)
		binary.BigEndian.PutUint32(b[4:], 0x12345678)
		return append(b, rest...)
	}}
}

// raw is bytes as they are, said to be of a protocol.
func raw(protocol byte, b ...byte) layer {
	return layer{protocol, func(_ byte, rest []byte) []byte { return append(bytes.Clone(b), rest...) }}
}

func icmp6(kind byte, body ...byte) layer {
	return raw(unix.IPPROTO_ICMPV6, append([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, body...)...)
}

// advertisement is a router advertisement with a prefix.
func advertisement() layer {
	body := make([]byte, 8, 40)
	option := make([]byte, 32)
	option[0], option[1], option[2], option[3] = 3, 4, 64, 0xc0
	prefix := netip.MustParseAddr("2001:db8:bad::").As16()
	copy(option[16:], prefix[:])
	return icmp6(134, append(body, option...)...)
}

func udp6(from, to uint16) layer {
	b := make([]byte, 16)
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint16(b[4:], 16)
	return raw(unix.IPPROTO_UDP, b...)
}

func tcp6(flags byte) layer {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, 4242)
	binary.BigEndian.PutUint16(b[2:], 7)
	b[12], b[13] = 5<<4, flags
	return raw(unix.IPPROTO_TCP, b...)
}

// ethernet puts a frame together. The source is replaced when it is sent, by one that identifies it.
func ethernet(to string, kind uint16, payload []byte) []byte {
	b := make([]byte, 14, 14+len(payload))
	copy(b, mac(to))
	b[6] = 2
	binary.BigEndian.PutUint16(b[12:], kind)
	return append(b, payload...)
}

func ether6(to string, packet []byte) []byte { return ethernet(to, unix.ETH_P_IPV6, packet) }

// tagged puts a VLAN tag into a frame.
func tagged(kind uint16, frame []byte) []byte {
	b := append(bytes.Clone(frame[:12]), byte(kind>>8), byte(kind), 0, 5)
	return append(b, frame[12:]...)
}
