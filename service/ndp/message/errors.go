package message

import (
	"errors"
	"fmt"
)

// What is wrong with a frame or message; the errors of this package wrap one of these.
var (
	// ErrNotICMP is for frames that have no ICMPv6 message: another protocol, or a VLAN's tag.
	ErrNotICMP = errors.New("no ICMPv6 message")
	// ErrTruncated is for frames that end before what they say they hold.
	ErrTruncated = errors.New("frame is truncated")
	// ErrFragment is for frames with a fragment header, which neighbour discovery must not have
	// (RFC 6980 5).
	ErrFragment = errors.New("packet is a fragment")
	// ErrChecksum is for ICMPv6 messages with a wrong checksum (RFC 4443 2.3).
	ErrChecksum = errors.New("wrong ICMPv6 checksum")
	// ErrType is for ICMPv6 messages of another type than the one asked for.
	ErrType = errors.New("another ICMPv6 type")
	// ErrInvalid is for messages that a receiver must silently discard.
	ErrInvalid = errors.New("invalid message")
)

// invalid says why a message is to be discarded, and by which section.
func invalid(section, format string, args ...any) error {
	return fmt.Errorf("%w: %s (RFC %s)", ErrInvalid, fmt.Sprintf(format, args...), section)
}
