package message

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
)

// The options that are about the router that says them alone: another one that repeats them would lie.
const (
	optionRedirected            = 4  // RFC 4861 4.6.3
	optionAdvertisementInterval = 7  // RFC 6275 7.3
	optionHomeAgent             = 8  // RFC 6275 7.4
	optionCGA                   = 11 // RFC 3971 5.1
	optionSignature             = 12 // RFC 3971 5.2
	optionTimestamp             = 13 // RFC 3971 5.3
	optionTrustAnchor           = 15 // RFC 3971 6.4.3
	optionCertificate           = 16 // RFC 3971 6.4.4
)

// The flags of a prefix information option that a router must not repeat which passes it on: that the prefix
// is on link, that it is the router's own address (RFC 6275 7.2), that prefixes are to be had by
// DHCPv6 (RFC 9762 6).
const (
	flagRouterAddress = 0x20
	flagDelegation    = 0x10
)

// Proxied returns an option of an advertisement heard age ago as another router may repeat it that
// passes the first one's word on: with the lifetimes that remain, as Announcement has it; prefixes not
// on link (L, R and P clear); name servers without those whose address is link-local, since that would be
// somebody else here. It is nil where nothing is left to be said, and for what is about the router alone.
func Proxied(option []byte, age time.Duration) []byte {
	if len(option) < optionUnit || len(option) != optionUnit*int(option[1]) {
		return nil
	}
	kind := option[0]
	switch kind {
	case optionSourceLinkLayer, optionTargetLinkLayer, optionRedirected, optionMTU, optionAdvertisementInterval, optionHomeAgent,
		optionCGA, optionSignature, optionTimestamp, optionNonce, optionTrustAnchor, optionCertificate:
		return nil
	}
	option = slices.Clone(option)
	grow(kind, option, wholeSeconds(age))
	switch kind {
	case optionPrefix:
		p, ok := parsePrefix(kind, option)
		if !ok || !p.usable() {
			return nil
		}
		option[atPrefixFlags] &^= flagOnLink | flagRouterAddress | flagDelegation
	case optionRDNSS, optionEncryptedDNS:
		return WithServers(option, func(a netip.Addr) bool { return !linkLocal.Contains(a) })
	}
	return option
}

// WithServers returns an RDNSS or encrypted DNS option with those of its addresses that keep picks; nil
// if none is left of some, or if it isn't well-formed. An encrypted DNS option that has none (RFC 9463 3.1.6)
// stays, and so does every other option.
func WithServers(option []byte, keep func(netip.Addr) bool) []byte {
	switch {
	case len(option) < optionUnit:
		return nil
	case option[0] == optionRDNSS:
		const first = optionUnit
		list, ok := keepServers(option[first:], keep)
		if !ok || len(list) == 0 {
			return nil
		}
		kept := append(slices.Clone(option[:first]), list...)
		kept[1] = byte(len(kept) / optionUnit)
		return kept
	case option[0] == optionEncryptedDNS:
		return withEncrypted(option, keep)
	}
	return option
}

func keepServers(b []byte, keep func(netip.Addr) bool) (kept []byte, ok bool) {
	const size = 16
	if len(b)%size != 0 {
		return nil, false
	}
	for server := range slices.Chunk(b, size) {
		if keep(netip.AddrFrom16([16]byte(server))) {
			kept = append(kept, server...)
		}
	}
	return kept, true
}

// withEncrypted is WithServers for RFC 9463 6.1: priority, lifetime, and then, each with its
// length, the name, the addresses and the parameters, of which the latter two may be missing.
func withEncrypted(option []byte, keep func(netip.Addr) bool) []byte {
	const atName = 8
	at := atName
	field := func() (b []byte, ok bool) {
		if at+2 > len(option) {
			return nil, false
		}
		n := int(binary.BigEndian.Uint16(option[at:]))
		if at+2+n > len(option) {
			return nil, false
		}
		b, at = option[at+2:at+2+n], at+2+n
		return b, true
	}
	if _, ok := field(); !ok {
		return nil
	}
	if binary.BigEndian.Uint16(option[2:]) == 0 || len(option)-at < 2 {
		return option // an alias, or a name alone
	}
	before := at
	servers, ok := field()
	if !ok {
		return nil
	}
	if len(servers) == 0 {
		return option
	}
	kept, ok := keepServers(servers, keep)
	if !ok || len(kept) == 0 {
		return nil
	}
	b := slices.Clone(option[:before])
	b = binary.BigEndian.AppendUint16(b, uint16(len(kept)))
	b = append(append(b, kept...), option[at:]...)
	b = append(b, make([]byte, -len(b)&(optionUnit-1))...)
	b[1] = byte(len(b) / optionUnit)
	return b
}

// Ended returns an option for a route, name servers, a search list or PREF64 by which hosts forget what it
// said; nil for one of another type, or one that isn't whole.
func Ended(option []byte) []byte {
	if len(option) < optionUnit {
		return nil
	}
	b := slices.Clone(option)
	switch b[0] {
	case optionRoute, optionRDNSS, optionDNSSL, optionEncryptedDNS:
		clear(b[atLifetime : atLifetime+4])
	case optionPREF64:
		b[atScaledLifetime] = 0
		b[atScaledLifetime+1] &= maskPLC
	default:
		return nil
	}
	return b
}

// Remaining is an option's lifetime, valid lifetime of a prefix; ok is false for one that has none.
func Remaining(option []byte) (d time.Duration, ok bool) {
	switch {
	case len(option) < optionUnit:
	case option[0] == optionPrefix, option[0] == optionRoute, option[0] == optionRDNSS, option[0] == optionDNSSL, option[0] == optionEncryptedDNS:
		return time.Duration(binary.BigEndian.Uint32(option[atLifetime:])) * time.Second, true
	case option[0] == optionPREF64:
		return time.Duration(binary.BigEndian.Uint16(option[atScaledLifetime:])&^maskPLC) * time.Second, true
	}
	return 0, false
}
