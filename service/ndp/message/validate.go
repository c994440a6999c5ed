package message

import (
	"fmt"
	"net/netip"
)

var linkLocal = netip.MustParsePrefix("fe80::/10")

// checkHeader applies the rules that are common to all messages of neighbour discovery
// (RFC 4861 6.1.1, 6.1.2, 7.1.1, 7.1.2). The options begin after least bytes.
func checkHeader(f Frame, kind uint8, least int, section string) error {
	if err := checkMessage(f.ICMP, kind, least, section); err != nil {
		return err
	}
	if f.HopLimit != hopLimit {
		return invalid(section, "hop limit %d", f.HopLimit)
	}
	return nil
}

// checkMessage is checkHeader for what isn't in a frame.
func checkMessage(message []byte, kind uint8, least int, section string) error {
	switch {
	case len(message) > 0 && message[0] != kind:
		return fmt.Errorf("%w: %d, not %d", ErrType, message[0], kind)
	case len(message) < least:
		return invalid(section, "%d bytes, not %d", len(message), least)
	case message[1] != 0:
		return invalid(section, "code %d", message[1])
	}
	return checkOptions(section, message[least:])
}
