package message

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"time"
)

// atLifetime is where the lifetime is in the options for routes and names.
const atLifetime = 4

// PREF64's lifetime is the upper 13 bits, in units of 8 s, and has no infinity (RFC 8781 4).
const (
	atScaledLifetime = 2
	scaleBits        = 3
	maskPLC          = 1<<scaleBits - 1
)

// Announcement returns the body as the router would send it age after it was heard: the lifetimes of
// router, prefixes, routes, RDNSS, DNSSL, encrypted DNS and PREF64 are what remains, rounded down to
// whole units, so never longer than the router said; what is infinite stays so. Above 0, retrans
// replaces the Retrans Timer, in ms. All else is as it was, but for the checksum, which is 0 (Marshal
// fills it), and the preference of a router whose lifetime has ended, which must be 0
// (RFC 4191 2.2). A prefix that hosts ignore since it is preferred longer than valid keeps both
// lifetimes, lest it end up as one that they don't.
func (ra *RouterAdvertisement) Announcement(age, retrans time.Duration) []byte {
	body := ra.Body()
	body[2], body[3] = 0, 0
	seconds := wholeSeconds(age)
	if lifetime := binary.BigEndian.Uint16(body[atRouterLifetime:]); lifetime > 0 {
		setRouterLifetime(body, uint16(remaining(uint32(lifetime), seconds)))
	}
	if retrans > 0 {
		ms := min(max(1, retrans.Milliseconds()), math.MaxUint32)
		binary.BigEndian.PutUint32(body[atRetransTimer:], uint32(ms))
	}
	for kind, option := range options(body[advertisementLen:]) {
		grow(kind, option, seconds)
	}
	return body
}

// grow lets an option's lifetimes be that much older, in place.
func grow(kind byte, option []byte, seconds uint32) {
	switch kind {
	case optionPrefix:
		if p, ok := parsePrefix(kind, option); ok && p.Preferred <= p.Valid {
			outlive(option[atValid:], seconds)
			outlive(option[atPreferred:], seconds)
		}
	case optionRoute, optionRDNSS, optionDNSSL, optionEncryptedDNS:
		outlive(option[atLifetime:], seconds)
	case optionPREF64:
		scaled := binary.BigEndian.Uint16(option[atScaledLifetime:])
		left := remaining(uint32(scaled>>scaleBits<<scaleBits), seconds)
		binary.BigEndian.PutUint16(option[atScaledLifetime:], uint16(left)&^maskPLC|scaled&maskPLC)
	}
}

// Final returns the body of an advertisement by which hosts forget what they were told age ago:
// the prefixes in forget, and, with router, the router with all it said: default route, prefixes,
// routes and name servers. Prefixes to be forgotten of which it said nothing are appended, on-link and
// autonomous, as far as the 65535 bytes of a packet allow. All else is as Announcement has it.
func (ra *RouterAdvertisement) Final(forget []netip.Prefix, router bool, age time.Duration) []byte {
	body := ra.Announcement(age, 0)
	forget = masked(forget)
	said := map[netip.Prefix]bool{}
	for kind, option := range options(body[advertisementLen:]) {
		switch kind {
		case optionPrefix:
			p, ok := parsePrefix(kind, option)
			if ok {
				said[p.Prefix] = true
			}
			if len(option) >= prefixLen && (router || ok && slices.Contains(forget, p.Prefix)) {
				clear(option[atValid : atPreferred+4])
			}
		case optionRoute, optionRDNSS, optionDNSSL, optionEncryptedDNS:
			if router {
				clear(option[atLifetime : atLifetime+4])
			}
		case optionPREF64:
			if router {
				option[atScaledLifetime] = 0
				option[atScaledLifetime+1] &= maskPLC
			}
		}
	}
	if router {
		setRouterLifetime(body, 0)
	}
	return appendWithdrawn(body, slices.DeleteFunc(forget, func(p netip.Prefix) bool { return said[p] }))
}

// Withdrawal is Final for a router of whose advertisement nothing is left: it ends the default route
// and the prefixes, and says nothing else.
func Withdrawal(forget []netip.Prefix) []byte {
	body := make([]byte, advertisementLen)
	body[0] = TypeRouterAdvertisement
	return appendWithdrawn(body, masked(forget))
}

func appendWithdrawn(body []byte, prefixes []netip.Prefix) []byte {
	for _, p := range prefixes {
		if len(body)+prefixLen <= math.MaxUint16 {
			body = append(body, withdrawn(p)...)
		}
	}
	return body
}

// masked returns the IPv6 prefixes among them, each once, in their order.
func masked(prefixes []netip.Prefix) []netip.Prefix {
	var list []netip.Prefix
	for _, p := range prefixes {
		if p = p.Masked(); p.IsValid() && p.Addr().Is6() && !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list
}

func setRouterLifetime(body []byte, seconds uint16) {
	binary.BigEndian.PutUint16(body[atRouterLifetime:], seconds)
	if seconds == 0 {
		body[atFlags] &^= maskPreference
	}
}

// outlive lets the lifetime at the beginning of b be that much older.
func outlive(b []byte, seconds uint32) {
	if lifetime := binary.BigEndian.Uint32(b); lifetime != infinity {
		binary.BigEndian.PutUint32(b, remaining(lifetime, seconds))
	}
}

func remaining(lifetime, seconds uint32) uint32 { return lifetime - min(lifetime, seconds) }

// wholeSeconds rounds up: what has begun is over.
func wholeSeconds(age time.Duration) uint32 {
	seconds := max(0, age/time.Second)
	if age > seconds*time.Second {
		seconds++
	}
	return uint32(min(seconds, math.MaxUint32))
}
