package message

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
)

// MAC is an Ethernet address.
type MAC [6]byte

// The groups of RFC 4291 2.7.1 on a link.
var (
	AllNodes   = netip.MustParseAddr("ff02::1")
	AllRouters = netip.MustParseAddr("ff02::2")
)

// String is lower-case with colons: "02:00:00:00:00:0a".
func (m MAC) String() string {
	const digits = "0123456789abcdef"
	var text [17]byte
	for i, b := range m {
		if i > 0 {
			text[3*i-1] = ':'
		}
		text[3*i], text[3*i+1] = digits[b>>4], digits[b&15]
	}
	return string(text[:])
}

// ParseMAC parses what String returns; capitals are understood.
func ParseMAC(text string) (MAC, error) {
	var m MAC
	parts := strings.Split(text, ":")
	for i, part := range parts {
		if len(parts) != len(m) || len(part) != 2 {
			return MAC{}, fmt.Errorf("cannot parse MAC address %q: not six pairs of digits with colons", text)
		}
		if _, err := hex.Decode(m[i:i+1], []byte(part)); err != nil {
			return MAC{}, fmt.Errorf("cannot parse MAC address %q: %w", text, err)
		}
	}
	return m, nil
}

// IsMulticast tells whether it is a group's address, such as the one of all, and so no sender's.
func (m MAC) IsMulticast() bool { return m[0]&1 != 0 }

// Multicast returns the Ethernet address for an IPv6 group (RFC 2464 7).
func Multicast(group netip.Addr) MAC {
	a := group.As16()
	return MAC{0x33, 0x33, a[12], a[13], a[14], a[15]}
}
