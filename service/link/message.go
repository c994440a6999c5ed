package link

import (
	"encoding/binary"
	"errors"
	"iter"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

var native = binary.NativeEndian

var errTruncated = errors.New("netlink message is truncated")

// message is a netlink message (RFC 3549 2.2) whose body is a part of the receive buffer.
type message struct {
	kind, flags uint16
	seq         uint32
	body        []byte
}

// nextMessage cuts the first message off b. It is false when b doesn't hold a whole one.
func nextMessage(b []byte) (m message, rest []byte, ok bool) {
	if len(b) < unix.NLMSG_HDRLEN {
		return m, nil, false
	}
	n := int(native.Uint32(b))
	if n < unix.NLMSG_HDRLEN || n > len(b) {
		return m, nil, false
	}
	m = message{kind: native.Uint16(b[4:]), flags: native.Uint16(b[6:]), seq: native.Uint32(b[8:]),
		body: b[unix.NLMSG_HDRLEN:n]}
	return m, b[min(align(n), len(b)):], true
}

func align(n int) int { return (n + 3) &^ 3 }

// attribute is one type-length-value of a message's body.
type attribute struct {
	kind  uint16
	value []byte
}

// attributes walks over the attributes in b; what is malformed ends it.
func attributes(b []byte) iter.Seq[attribute] {
	return func(yield func(attribute) bool) {
		for len(b) >= unix.SizeofRtAttr {
			n := int(native.Uint16(b))
			if n < unix.SizeofRtAttr || n > len(b) {
				return
			}
			a := attribute{kind: native.Uint16(b[2:]) & nl.NLA_TYPE_MASK, value: b[unix.SizeofRtAttr:n]}
			if !yield(a) {
				return
			}
			b = b[min(align(n), len(b)):]
		}
	}
}

// The accessors are 0, "" or invalid for a value that is too short.

func (a attribute) u8() uint8 {
	if len(a.value) < 1 {
		return 0
	}
	return a.value[0]
}

func (a attribute) u32() uint32 {
	if len(a.value) < 4 {
		return 0
	}
	return native.Uint32(a.value)
}

func (a attribute) text() string { return string(a.bytesOfText()) }

func (a attribute) bytesOfText() []byte {
	for i, c := range a.value {
		if c == 0 {
			return a.value[:i]
		}
	}
	return a.value
}

func (a attribute) addr() netip.Addr {
	addr, _ := netip.AddrFromSlice(a.value)
	return addr
}

// via reads a RTA_VIA: the family, then the address.
func (a attribute) via() netip.Addr {
	if len(a.value) < 2 {
		return netip.Addr{}
	}
	addr, _ := netip.AddrFromSlice(a.value[2:])
	return addr
}
