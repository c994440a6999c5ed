package ndp

import (
	"net/netip"
	"slices"
	"time"

	"gangway/service/ndp/message"
)

// key tells a router from all others (vnet.Router).
type key struct {
	address netip.Addr
	mac     message.MAC
}

func (k key) compare(o key) int {
	if c := k.address.Compare(o.address); c != 0 {
		return c
	}
	return slices.Compare(k.mac[:], o.mac[:])
}

// maxBodies is how many advertisements of a router are kept: it may split what it says over several
// (RFC 4861 6.2.3).
const maxBodies = 4

// staleBody is when an advertisement that was not repeated is no longer kept: nothing that it said can
// have been short of this and still hold, but what doesn't end.
const staleBody = retirement

// body is an advertisement, as it came.
type body struct {
	ra *message.RouterAdvertisement
	at time.Time
	// said are its options without lifetimes, sorted.
	said []string
}

func newBody(ra *message.RouterAdvertisement, at time.Time) body {
	b := body{ra: ra, at: at}
	for kind, option := range ra.Options() {
		b.said = append(b.said, timeless(kind, option))
	}
	slices.Sort(b.said)
	b.said = slices.Compact(b.said)
	return b
}

// The options whose lifetimes go by, and that of a prefix (RFC 4861 4.6.2, RFC 4191 2.3, RFC 8106
// 5, RFC 8781 4, RFC 9463 6.1).
const (
	optionPrefix       = 3
	optionRoute        = 24
	optionRDNSS        = 25
	optionDNSSL        = 31
	optionPREF64       = 38
	optionEncryptedDNS = 144
)

// timeless is what an option says, whatever its lifetime.
func timeless(kind byte, option []byte) string {
	b := slices.Clone(option)
	blank := func(from, to int) { clear(b[min(from, len(b)):min(to, len(b))]) }
	switch kind {
	case optionPrefix:
		blank(3, 16) // flags, both lifetimes and what is reserved
	case optionRoute:
		blank(3, 8) // preference and lifetime
	case optionRDNSS, optionDNSSL, optionEncryptedDNS:
		blank(4, 8)
	case optionPREF64:
		blank(2, 3)
		b[3] &= 7
	}
	return string(b)
}

// remember puts the advertisement before the older ones and lets those go that say nothing else.
// changed tells whether what is said in all of them is other than before.
func remember(list []body, b body) (kept []body, changed bool) {
	kept = append(kept, b)
	said := slices.Clone(b.said)
	for _, old := range list {
		news := slices.DeleteFunc(slices.Clone(old.said), func(s string) bool { return slices.Contains(said, s) })
		if len(news) == 0 || len(kept) == maxBodies || b.at.Sub(old.at) > staleBody {
			continue
		}
		kept = append(kept, old)
		said = append(said, news...)
	}
	return kept, !slices.Equal(allSaid(list), allSaid(kept))
}

func allSaid(list []body) []string {
	var said []string
	for _, b := range list {
		said = append(said, b.said...)
	}
	slices.Sort(said)
	return slices.Compact(said)
}

// prefixes are those that the advertisement names, for use on the link.
func (b body) prefixes() []netip.Prefix {
	var list []netip.Prefix
	for _, p := range b.ra.Prefixes() {
		list = append(list, p.Prefix)
	}
	return list
}

// headerLen is where an advertisement's options begin (RFC 4861 4.2).
const headerLen = 16

// only returns the advertisement with those of its options that pass.
func (b body) only(pass func(kind byte, said string) bool) *message.RouterAdvertisement {
	raw := b.ra.Body()[:headerLen]
	for kind, option := range b.ra.Options() {
		if pass(kind, timeless(kind, option)) {
			raw = append(raw, option...)
		}
	}
	ra, err := message.ParseBody(raw, b.ra.From, b.ra.MAC)
	if err != nil {
		return b.ra // can't be: it was valid with more
	}
	return ra
}
