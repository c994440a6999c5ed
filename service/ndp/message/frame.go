package message

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
)

// The ICMPv6 types of neighbour discovery (RFC 4861 4).
const (
	TypeRouterSolicitation    = 133
	TypeRouterAdvertisement   = 134
	TypeNeighborSolicitation  = 135
	TypeNeighborAdvertisement = 136
)

const (
	ethernetLen   = 14
	ipv6Len       = 40
	etherTypeIPv6 = 0x86dd
	// icmpLen is type, code and checksum, which every ICMPv6 message has (RFC 4443 2.1).
	icmpLen = 4
	// hopLimit is what no router has passed on (RFC 4861 3.1).
	hopLimit = 255
)

// Frame is an Ethernet frame with an ICMPv6 message.
type Frame struct {
	Source, Destination MAC
	// From and To are IPv6 addresses, without a zone.
	From, To netip.Addr
	HopLimit uint8
	// ICMP is the ICMPv6 message, checksum included.
	ICMP []byte
}

// Type returns the ICMPv6 type.
func (f Frame) Type() uint8 {
	if len(f.ICMP) == 0 {
		return 0
	}
	return f.ICMP[0]
}

// ParseFrame parses an untagged Ethernet II frame with an IPv6 packet whose payload, behind extension
// headers that a host would pass over, is an ICMPv6 message with the right checksum. What is
// behind the packet, as in frames shorter than Ethernet allows, is cut off. The message is a part
// of b. Errors are ErrNotICMP, ErrTruncated, ErrFragment, ErrChecksum or ErrInvalid.
func ParseFrame(b []byte) (Frame, error) {
	var f Frame
	if len(b) < ethernetLen {
		return f, fmt.Errorf("%w: %d bytes", ErrTruncated, len(b))
	}
	if kind := binary.BigEndian.Uint16(b[12:]); kind != etherTypeIPv6 {
		return f, fmt.Errorf("%w: ethertype %#04x", ErrNotICMP, kind)
	}
	packet := b[ethernetLen:]
	if len(packet) < ipv6Len {
		return f, fmt.Errorf("%w: %d bytes of IPv6", ErrTruncated, len(packet))
	}
	if version := packet[0] >> 4; version != 6 {
		return f, fmt.Errorf("%w: IP version %d", ErrNotICMP, version)
	}
	payload := packet[ipv6Len:]
	length := int(binary.BigEndian.Uint16(packet[4:]))
	if length > len(payload) {
		return f, fmt.Errorf("%w: %d bytes of payload, not %d", ErrTruncated, len(payload), length)
	}
	// A length of 0 is an empty packet or a jumbogram (RFC 2675); neither is for us.
	message, err := upperLayer(packet[6], payload[:length])
	if err != nil {
		return f, err
	}
	f = Frame{
		Destination: MAC(b), Source: MAC(b[6:]),
		From: netip.AddrFrom16([16]byte(packet[8:])), To: netip.AddrFrom16([16]byte(packet[24:])),
		HopLimit: packet[7], ICMP: message,
	}
	switch {
	case len(message) < icmpLen:
		return Frame{}, fmt.Errorf("%w: %d bytes of ICMPv6", ErrTruncated, len(message))
	case f.Source.IsMulticast():
		return Frame{}, invalid("1112 6.4", "sent by the group %s", f.Source)
	case f.From.IsMulticast():
		return Frame{}, invalid("4291 2.7", "sent by the group %s", f.From)
	case checksum(f.From, f.To, message) != 0:
		return Frame{}, ErrChecksum
	}
	return f, nil
}

// Marshal returns the frame, without extension headers, with the message's checksum put right. It
// isn't padded to what Ethernet wants at least. The message must have 4 to 65535 bytes.
func (f Frame) Marshal() []byte {
	if len(f.ICMP) < icmpLen || len(f.ICMP) > math.MaxUint16 {
		panic(fmt.Sprintf("message: %d bytes of ICMPv6", len(f.ICMP)))
	}
	b := make([]byte, ethernetLen+ipv6Len, ethernetLen+ipv6Len+len(f.ICMP))
	copy(b, f.Destination[:])
	copy(b[6:], f.Source[:])
	binary.BigEndian.PutUint16(b[12:], etherTypeIPv6)
	packet := b[ethernetLen:]
	packet[0] = 6 << 4
	binary.BigEndian.PutUint16(packet[4:], uint16(len(f.ICMP)))
	packet[6], packet[7] = nextICMP, f.HopLimit
	from, to := f.From.As16(), f.To.As16()
	copy(packet[8:], from[:])
	copy(packet[24:], to[:])
	b = append(b, f.ICMP...)
	message := b[ethernetLen+ipv6Len:]
	message[2], message[3] = 0, 0
	binary.BigEndian.PutUint16(message[2:], checksum(f.From, f.To, message))
	return b
}

// checksum returns what belongs into a message whose checksum is 0, and 0 for one whose checksum is
// right (RFC 4443 2.3, with the pseudo-header of RFC 8200 8.1).
func checksum(from, to netip.Addr, message []byte) uint16 {
	source, destination := from.As16(), to.As16()
	total := uint64(len(message)) + nextICMP + sum(source[:]) + sum(destination[:]) + sum(message)
	for total > math.MaxUint16 {
		total = total>>16 + total&math.MaxUint16
	}
	return ^uint16(total)
}

func sum(b []byte) uint64 {
	var total uint64
	for ; len(b) > 1; b = b[2:] {
		total += uint64(binary.BigEndian.Uint16(b))
	}
	if len(b) > 0 {
		total += uint64(b[0]) << 8
	}
	return total
}
