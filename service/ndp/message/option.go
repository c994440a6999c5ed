package message

import (
	"iter"
)

// The options that are looked into, of those that IANA has assigned.
const (
	optionSourceLinkLayer = 1   // RFC 4861 4.6.1
	optionTargetLinkLayer = 2   // RFC 4861 4.6.1
	optionPrefix          = 3   // RFC 4861 4.6.2
	optionMTU             = 5   // RFC 4861 4.6.4
	optionNonce           = 14  // RFC 3971 5.3.2, RFC 7527 4.1
	optionRoute           = 24  // RFC 4191 2.3
	optionRDNSS           = 25  // RFC 8106 5.1
	optionDNSSL           = 31  // RFC 8106 5.2
	optionPREF64          = 38  // RFC 8781 4
	optionEncryptedDNS    = 144 // RFC 9463 6.1
)

// optionUnit is what an option's length counts in.
const optionUnit = 8

// checkOptions tells whether each option has a length and is inside (RFC 4861 4.6).
func checkOptions(section string, b []byte) error {
	for len(b) > 0 {
		switch {
		case len(b) < 2:
			return invalid(section, "%d byte behind the last option", len(b))
		case b[1] == 0:
			return invalid(section, "option %d has no length", b[0])
		case optionUnit*int(b[1]) > len(b):
			return invalid(section, "option %d of %d bytes in %d", b[0], optionUnit*int(b[1]), len(b))
		}
		b = b[optionUnit*int(b[1]):]
	}
	return nil
}

// options walks over the options in b, which checkOptions has found to be right: the type, and
// the whole option.
func options(b []byte) iter.Seq2[byte, []byte] {
	return func(yield func(byte, []byte) bool) {
		for len(b) > 0 {
			n := optionUnit * int(b[1])
			if !yield(b[0], b[:n:n]) {
				return
			}
			b = b[n:]
		}
	}
}

// firstOption returns the first option of a type, nil if there is none: others of the type are
// ignored, as Linux does.
func firstOption(b []byte, kind byte) []byte {
	for k, option := range options(b) {
		if k == kind {
			return option
		}
	}
	return nil
}

// linkLayer returns the address in the first option of the type (RFC 2464 6).
func linkLayer(b []byte, kind byte) (MAC, bool) {
	option := firstOption(b, kind)
	if len(option) != optionUnit {
		return MAC{}, false
	}
	return MAC(option[2:]), true
}

func linkLayerOption(kind byte, mac MAC) []byte { return append([]byte{kind, 1}, mac[:]...) }
