package message

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"net/netip"
	"slices"
	"time"
)

// Where a router advertisement's fields are (RFC 4861 4.2), and its options begin.
const (
	atCurHopLimit    = 4
	atFlags          = 5
	atRouterLifetime = 6
	atReachableTime  = 8
	atRetransTimer   = 12
	advertisementLen = 16

	flagManaged = 0x80
	flagOther   = 0x40
	// maskPreference is RFC 4191 2.2's.
	maskPreference = 0x18
)

// Preference is how much hosts prefer a default router to others (RFC 4191 2.1).
type Preference int8

// The preferences.
const (
	Low    Preference = -1
	Medium Preference = 0
	High   Preference = 1
)

// RouterAdvertisement is a router's, as received, valid by RFC 4861 6.1.2.
type RouterAdvertisement struct {
	// From is the router's link-local address, without a zone.
	From netip.Addr
	// MAC is where the frame came from.
	MAC  MAC
	body []byte
}

// ParseRouterAdvertisement returns the advertisement in a frame, which may be used for something
// else after that. It is ErrType if the message is something else, ErrInvalid if a host would discard it.
func ParseRouterAdvertisement(f Frame) (*RouterAdvertisement, error) {
	if err := checkHeader(f, TypeRouterAdvertisement, advertisementLen, "4861 6.1.2"); err != nil {
		return nil, fmt.Errorf("cannot parse router advertisement of %q: %w", f.From, err)
	}
	return ParseBody(f.ICMP, f.From, f.Source)
}

// ParseBody is ParseRouterAdvertisement for what Body, Final or Announcement returned: it
// validates all but what only a frame has, which is the hop limit and the checksum.
func ParseBody(body []byte, from netip.Addr, mac MAC) (*RouterAdvertisement, error) {
	const section = "4861 6.1.2"
	from = from.WithZone("")
	err := checkMessage(body, TypeRouterAdvertisement, advertisementLen, section)
	switch {
	case err != nil:
	case !linkLocal.Contains(from):
		err = invalid(section, "the source isn't link-local")
	case len(body) > math.MaxUint16:
		err = invalid("8200 3", "%d bytes", len(body))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot parse router advertisement of %q: %w", from, err)
	}
	return &RouterAdvertisement{From: from, MAC: mac, body: slices.Clone(body)}, nil
}

// Body returns the ICMPv6 message as it was received.
func (ra *RouterAdvertisement) Body() []byte { return slices.Clone(ra.body) }

// Options walks over the options in their order: the type, and the whole option, which must not be written to.
func (ra *RouterAdvertisement) Options() iter.Seq2[byte, []byte] {
	return options(ra.body[advertisementLen:])
}

// CurHopLimit is what hosts are to send with; 0 if the router doesn't say.
func (ra *RouterAdvertisement) CurHopLimit() uint8 { return ra.body[atCurHopLimit] }

// Managed tells that addresses are to be had by DHCPv6.
func (ra *RouterAdvertisement) Managed() bool { return ra.body[atFlags]&flagManaged != 0 }

// Other tells that other configuration is to be had by DHCPv6.
func (ra *RouterAdvertisement) Other() bool { return ra.body[atFlags]&flagOther != 0 }

// Preference is Medium for the reserved value, and if the router isn't a default one (RFC 4191 2.2).
func (ra *RouterAdvertisement) Preference() Preference {
	if ra.RouterLifetime() == 0 {
		return Medium
	}
	switch ra.body[atFlags] & maskPreference {
	case 0x08:
		return High
	case 0x18:
		return Low
	}
	return Medium
}

// RouterLifetime is how long it is a default router, when heard, up to 65535 s; 0 if it is none.
func (ra *RouterAdvertisement) RouterLifetime() time.Duration {
	return time.Duration(binary.BigEndian.Uint16(ra.body[atRouterLifetime:])) * time.Second
}

// ReachableTime is how long hosts take a neighbour to be there; 0 if the router doesn't say.
func (ra *RouterAdvertisement) ReachableTime() time.Duration {
	return time.Duration(binary.BigEndian.Uint32(ra.body[atReachableTime:])) * time.Millisecond
}

// RetransTimer is the time between solicitations that hosts repeat; 0 if the router doesn't say.
func (ra *RouterAdvertisement) RetransTimer() time.Duration {
	return time.Duration(binary.BigEndian.Uint32(ra.body[atRetransTimer:])) * time.Millisecond
}

// MTU is the link's in bytes; 0 if the router doesn't say. It may be any number: hosts ignore
// those below 1280 and above what the interface can do.
func (ra *RouterAdvertisement) MTU() uint32 {
	option := firstOption(ra.body[advertisementLen:], optionMTU)
	if len(option) != optionUnit {
		return 0
	}
	return binary.BigEndian.Uint32(option[4:])
}

// SourceLinkLayer returns the router's MAC address as it says; false if it doesn't.
func (ra *RouterAdvertisement) SourceLinkLayer() (MAC, bool) {
	return linkLayer(ra.body[advertisementLen:], optionSourceLinkLayer)
}

// AdvertisementFrame returns a frame with the body of a router advertisement, as Body, Final and
// Announcement return it. Marshal puts its checksum right.
func AdvertisementFrame(from netip.Addr, mac MAC, to netip.Addr, toMAC MAC, body []byte) Frame {
	return Frame{Source: mac, Destination: toMAC, From: from.WithZone(""), To: to.WithZone(""), HopLimit: hopLimit, ICMP: slices.Clone(body)}
}
