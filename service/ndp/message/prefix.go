package message

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// Infinity is the lifetime that never ends (RFC 4861 4.6.2).
const Infinity = infinity * time.Second

const infinity = 0xffffffff

// Where a prefix information option's fields are (RFC 4861 4.6.2).
const (
	atPrefixBits      = 2
	atPrefixFlags     = 3
	atValid           = 4
	atPreferred       = 8
	atPrefix          = 16
	prefixLen         = 32
	flagOnLink        = 0x80
	flagAutonomous    = 0x40
	maxPrefixBits     = 128
	prefixOptionUnits = prefixLen / optionUnit
)

// Prefix is what a router says of a prefix.
type Prefix struct {
	// Prefix is masked.
	Prefix netip.Prefix
	// OnLink tells that its addresses are on the link, Autonomous that hosts may make themselves
	// addresses of it (which those on Ethernet do of a /64 alone).
	OnLink, Autonomous bool
	// Valid and Preferred are lifetimes from when it was heard, in whole seconds up to Infinity.
	// Preferred is never above Valid; 0 ends them.
	Valid, Preferred time.Duration
}

// After returns what is left of it that long after it was heard, as Announcement has it.
func (p Prefix) After(age time.Duration) Prefix {
	for _, d := range []*time.Duration{&p.Valid, &p.Preferred} {
		if *d < Infinity {
			*d = max(0, *d-time.Duration(wholeSeconds(age))*time.Second)
		}
	}
	return p
}

// notPrefixes are what no host has addresses of its own of that a router gave it: the loopback and
// IPv4-mapped ones, those of the link, and groups.
var notPrefixes = []netip.Prefix{netip.MustParsePrefix("::/64"), linkLocal, netip.MustParsePrefix("ff00::/8")}

// Prefixes returns the prefixes that hosts go by (RFC 4862 5.5.3), in the options' order, also those
// whose lifetime is 0. One may be there twice.
func (ra *RouterAdvertisement) Prefixes() []Prefix {
	var list []Prefix
	for kind, option := range ra.Options() {
		if p, ok := parsePrefix(kind, option); ok && p.usable() {
			list = append(list, p)
		}
	}
	return list
}

// parsePrefix reads a prefix information option. Longer ones than there should be are read by
// Linux, and so by us.
func parsePrefix(kind byte, option []byte) (Prefix, bool) {
	if kind != optionPrefix || len(option) < prefixLen || option[atPrefixBits] > maxPrefixBits {
		return Prefix{}, false
	}
	addr := netip.AddrFrom16([16]byte(option[atPrefix:]))
	return Prefix{
		Prefix:     netip.PrefixFrom(addr, int(option[atPrefixBits])).Masked(),
		OnLink:     option[atPrefixFlags]&flagOnLink != 0,
		Autonomous: option[atPrefixFlags]&flagAutonomous != 0,
		Valid:      time.Duration(binary.BigEndian.Uint32(option[atValid:])) * time.Second,
		Preferred:  time.Duration(binary.BigEndian.Uint32(option[atPreferred:])) * time.Second,
	}, true
}

// usable tells whether hosts go by it.
func (p Prefix) usable() bool {
	for _, not := range notPrefixes {
		if not.Overlaps(p.Prefix) {
			return false
		}
	}
	return p.Preferred <= p.Valid
}

// withdrawn returns the option by which hosts forget a prefix.
func withdrawn(p netip.Prefix) []byte {
	option := make([]byte, prefixLen)
	option[0], option[1] = optionPrefix, prefixOptionUnits
	option[atPrefixBits], option[atPrefixFlags] = byte(p.Bits()), flagOnLink|flagAutonomous
	addr := p.Addr().As16()
	copy(option[atPrefix:], addr[:])
	return option
}
