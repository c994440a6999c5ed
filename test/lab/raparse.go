package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strings"
	"time"
)

var errShort = errors.New("cut short")

// ParseRA reads an advertisement from the type on. It reads strictly what Marshal renders; options of other types, and those of a
// known type but an odd length, are in Unknown.
func ParseRA(b []byte) (RA, error) {
	if len(b) < 16 || b[0] != RouterAdvertisement {
		return RA{}, fmt.Errorf("cannot read router advertisement: %w", errShort)
	}
	ra := RA{
		HopLimit: b[4], Managed: b[5]&0x80 != 0, Other: b[5]&0x40 != 0, Preference: readPreference(b[5]),
		RouterLifetime: time.Duration(binary.BigEndian.Uint16(b[6:])) * time.Second,
		Reachable:      time.Duration(binary.BigEndian.Uint32(b[8:])) * time.Millisecond,
		Retrans:        time.Duration(binary.BigEndian.Uint32(b[12:])) * time.Millisecond,
	}
	size := 16
	for kind, body := range ndOptions(b[16:]) {
		size += 2 + len(body)
		if !ra.readOption(kind, body) {
			ra.Unknown = append(ra.Unknown, append([]byte{kind, byte((2 + len(body)) / 8)}, body...))
		}
	}
	if size != len(b) {
		return RA{}, fmt.Errorf("cannot read options of router advertisement: %w", errShort)
	}
	return ra, nil
}

// readOption reports whether the option is one that RA has a field for.
func (ra *RA) readOption(kind uint8, b []byte) bool {
	switch {
	case kind == optSourceLLA && len(b) == 6:
		ra.SourceLLA = net.HardwareAddr(b)
	case kind == optMTU && len(b) == 6:
		ra.MTU = binary.BigEndian.Uint32(b[2:])
	case kind == optPrefix && len(b) == 30 && b[0] <= 128:
		ra.Prefixes = append(ra.Prefixes, PrefixInfo{
			Prefix: netip.PrefixFrom(netip.AddrFrom16([16]byte(b[14:])), int(b[0])).Masked(),
			OnLink: b[1]&0x80 != 0, Autonomous: b[1]&0x40 != 0, RouterAddress: b[1]&0x20 != 0, PreferPD: b[1]&0x10 != 0,
			Valid: readSeconds(b[2:]), Preferred: readSeconds(b[6:]),
		})
	case kind == optRoute && len(b) <= 22 && b[0] <= 128 && 6+int(b[0]+7)/8 <= len(b):
		var a [16]byte
		copy(a[:], b[6:])
		ra.Routes = append(ra.Routes, RouteInfo{Prefix: netip.PrefixFrom(netip.AddrFrom16(a), int(b[0])).Masked(), Preference: readPreference(b[1]), Lifetime: readSeconds(b[2:])})
	case kind == optRDNSS && len(b) >= 22 && len(b)%16 == 6:
		s := ServerInfo{Lifetime: readSeconds(b[2:])}
		for a := b[6:]; len(a) > 0; a = a[16:] {
			s.Servers = append(s.Servers, netip.AddrFrom16([16]byte(a)))
		}
		ra.RDNSS = append(ra.RDNSS, s)
	case kind == optDNSSL && len(b) >= 14:
		ra.DNSSL = append(ra.DNSSL, SearchInfo{Domains: readNames(b[6:]), Lifetime: readSeconds(b[2:])})
	case kind == optPREF64 && len(b) == 14 && int(b[1]&7) < len(pref64Sizes):
		var a [16]byte
		copy(a[:], b[2:])
		lifetime := time.Duration(binary.BigEndian.Uint16(b)&^7) * time.Second
		ra.PREF64 = append(ra.PREF64, PREF64Info{Prefix: netip.PrefixFrom(netip.AddrFrom16(a), pref64Sizes[b[1]&7]).Masked(), Lifetime: lifetime})
	default:
		return false
	}
	return true
}

func readPreference(flags byte) int {
	switch flags >> 3 & 3 {
	case 1:
		return 1
	case 3:
		return -1
	}
	return 0
}

func readSeconds(b []byte) time.Duration {
	if n := binary.BigEndian.Uint32(b); n != math.MaxUint32 {
		return time.Duration(n) * time.Second
	}
	return Forever
}

// readNames reads domains up to the padding, or to what is no name.
func readNames(b []byte) (domains []string) {
	var labels []string
	for len(b) > 0 {
		n := int(b[0])
		switch {
		case n == 0 && len(labels) == 0, n >= len(b):
			return domains
		case n == 0:
			domains, labels = append(domains, strings.Join(labels, ".")), nil
		default:
			labels = append(labels, string(b[1:1+n]))
		}
		b = b[1+n:]
	}
	return domains
}
