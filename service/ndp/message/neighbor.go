package message

import (
	"fmt"
	"net/netip"
	"slices"
)

// Where the fields of both neighbour messages are (RFC 4861 4.3, 4.4), and their options begin.
const (
	atNeighborFlags = 4
	atTarget        = 8
	neighborLen     = 24

	flagRouter    = 0x80
	flagSolicited = 0x40
	flagOverride  = 0x20
)

// solicitedNode is where the groups are that an address is asked for at (RFC 4291 2.7.1).
var solicitedNode = netip.MustParsePrefix("ff02::1:ff00:0/104")

// NeighborSolicitation asks for a neighbour's MAC address, or whether anybody has an address. It is
// valid by RFC 4861 7.1.1.
type NeighborSolicitation struct {
	// From is who asks; it is unspecified when he wants to know whether he may have the target
	// (RFC 4862 5.4.2).
	From, To, Target netip.Addr
	// MAC is where the frame came from.
	MAC MAC
	// LinkLayer is the asker's MAC address as he says; 0 if he doesn't.
	LinkLayer MAC
	// Nonce is how he knows his own question (RFC 7527 4.1); nil if he doesn't.
	Nonce []byte
}

// Duplicate tells that it is about the target being had already, for which there is no other source.
func (s *NeighborSolicitation) Duplicate() bool { return s.From.IsUnspecified() }

// NeighborAdvertisement tells a neighbour's MAC address. It is valid by RFC 4861 7.1.2.
type NeighborAdvertisement struct {
	From, To, Target            netip.Addr
	Router, Solicited, Override bool
	// MAC is where the frame came from.
	MAC MAC
	// LinkLayer is the target's MAC address as it says; 0 if it doesn't.
	LinkLayer MAC
}

// ParseNeighborSolicitation returns the solicitation in a frame. It is ErrType if the message is
// something else, ErrInvalid if a host would discard it.
func ParseNeighborSolicitation(f Frame) (*NeighborSolicitation, error) {
	const section = "4861 7.1.1"
	target, err := checkNeighbor(f, TypeNeighborSolicitation, section)
	if err == nil && f.From.IsUnspecified() {
		switch {
		case !solicitedNode.Contains(f.To):
			err = invalid(section, "unspecified source to %s", f.To)
		case firstOption(f.ICMP[neighborLen:], optionSourceLinkLayer) != nil:
			err = invalid(section, "a link-layer address of an unspecified source")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot parse neighbour solicitation of %q: %w", f.From, err)
	}
	s := &NeighborSolicitation{From: f.From, To: f.To, Target: target, MAC: f.Source}
	s.LinkLayer, _ = linkLayer(f.ICMP[neighborLen:], optionSourceLinkLayer)
	if option := firstOption(f.ICMP[neighborLen:], optionNonce); option != nil {
		s.Nonce = slices.Clone(option[2:])
	}
	return s, nil
}

// ParseNeighborAdvertisement returns the advertisement in a frame. It is ErrType if the message
// is something else, ErrInvalid if a host would discard it.
func ParseNeighborAdvertisement(f Frame) (*NeighborAdvertisement, error) {
	const section = "4861 7.1.2"
	target, err := checkNeighbor(f, TypeNeighborAdvertisement, section)
	if err == nil && f.To.IsMulticast() && f.ICMP[atNeighborFlags]&flagSolicited != 0 {
		err = invalid(section, "solicited, but to %s", f.To)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot parse neighbour advertisement of %q: %w", f.From, err)
	}
	flags := f.ICMP[atNeighborFlags]
	a := &NeighborAdvertisement{From: f.From, To: f.To, Target: target, MAC: f.Source,
		Router: flags&flagRouter != 0, Solicited: flags&flagSolicited != 0, Override: flags&flagOverride != 0}
	a.LinkLayer, _ = linkLayer(f.ICMP[neighborLen:], optionTargetLinkLayer)
	return a, nil
}

// checkNeighbor applies the rules that are common to both, and returns the target.
func checkNeighbor(f Frame, kind uint8, section string) (netip.Addr, error) {
	if err := checkHeader(f, kind, neighborLen, section); err != nil {
		return netip.Addr{}, err
	}
	target := netip.AddrFrom16([16]byte(f.ICMP[atTarget:]))
	if target.IsMulticast() {
		return netip.Addr{}, invalid(section, "the target is the group %s", target)
	}
	return target, nil
}

// UnsolicitedAdvertisement tells the whole link that the target is at the MAC address now, whatever was
// known of it (RFC 4861 7.2.6).
func UnsolicitedAdvertisement(target netip.Addr, mac MAC) Frame {
	target = target.WithZone("")
	a := NeighborAdvertisement{From: target, To: AllNodes, Target: target, Override: true, MAC: mac, LinkLayer: mac}
	return a.Frame(Multicast(AllNodes))
}
