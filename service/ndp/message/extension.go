package message

import "fmt"

// The headers that may come between IPv6 and ICMPv6 (RFC 8200 4).
const (
	nextHopByHop    = 0
	nextRouting     = 43
	nextFragment    = 44
	nextICMP        = 58
	nextDestination = 60
)

// maxExtensions is the longest chain that is looked through. RFC 8200 4.1 has each header once, and
// destination options twice.
const maxExtensions = 8

// upperLayer returns the ICMPv6 message behind the extension headers. What a host that isn't a
// mobile node or a router wouldn't pass over is an error.
func upperLayer(next byte, b []byte) ([]byte, error) {
	for count := 0; next != nextICMP; count++ {
		switch {
		case next == nextFragment:
			return nil, ErrFragment
		case next != nextHopByHop && next != nextRouting && next != nextDestination:
			return nil, fmt.Errorf("%w: next header %d", ErrNotICMP, next)
		case next == nextHopByHop && count > 0:
			return nil, invalid("8200 4.1", "hop-by-hop options aren't first")
		case count == maxExtensions:
			return nil, fmt.Errorf("%w: more than %d extension headers", ErrNotICMP, maxExtensions)
		case len(b) < 8:
			return nil, fmt.Errorf("%w: %d bytes of extension header", ErrTruncated, len(b))
		}
		n := 8 * (int(b[1]) + 1)
		if n > len(b) {
			return nil, fmt.Errorf("%w: extension header of %d bytes in %d", ErrTruncated, n, len(b))
		}
		if next == nextRouting {
			if left := b[3]; left != 0 {
				return nil, invalid("8200 4.4", "%d segments are left to route", left)
			}
		} else if err := headerOptions(b[2:n]); err != nil {
			return nil, err
		}
		next, b = b[0], b[n:]
	}
	return b, nil
}

// headerOptions tells whether the options are such that a host passes over all of them (RFC 8200 4.2).
// It knows none but the padding: one that must be known isn't of those.
func headerOptions(b []byte) error {
	const pad1 = 0
	for len(b) > 0 {
		if b[0] == pad1 {
			b = b[1:]
			continue
		}
		if len(b) < 2 || 2+int(b[1]) > len(b) {
			return invalid("8200 4.2", "option of an extension header exceeds it")
		}
		if b[0]>>6 != 0 {
			return invalid("8200 4.2", "unknown option %#02x of an extension header", b[0])
		}
		b = b[2+int(b[1]):]
	}
	return nil
}
