package message

import (
	"fmt"
	"net/netip"
)

// routerSolicitationLen is where the options begin (RFC 4861 4.1).
const routerSolicitationLen = 8

// Solicitation is a router solicitation, valid by RFC 4861 6.1.1.
type Solicitation struct {
	// From is who asks, and may be unspecified.
	From netip.Addr
	// MAC is where the frame came from.
	MAC MAC
}

// ParseRouterSolicitation returns the solicitation in a frame. It is ErrType if the message is
// something else, ErrInvalid if a router would discard it.
func ParseRouterSolicitation(f Frame) (*Solicitation, error) {
	const section = "4861 6.1.1"
	err := checkHeader(f, TypeRouterSolicitation, routerSolicitationLen, section)
	if err == nil && f.From.IsUnspecified() && firstOption(f.ICMP[routerSolicitationLen:], optionSourceLinkLayer) != nil {
		err = invalid(section, "a link-layer address of an unspecified source")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot parse router solicitation of %q: %w", f.From, err)
	}
	return &Solicitation{From: f.From, MAC: f.Source}, nil
}

// RouterSolicitation asks all routers of a link to speak (RFC 4861 4.1). Without an address yet, from
// is the unspecified one.
func RouterSolicitation(from netip.Addr, mac MAC) Frame {
	body := make([]byte, routerSolicitationLen)
	body[0] = TypeRouterSolicitation
	if from.IsValid() && !from.IsUnspecified() {
		body = append(body, linkLayerOption(optionSourceLinkLayer, mac)...)
	}
	return Frame{Source: mac, Destination: Multicast(AllRouters), From: from.WithZone(""), To: AllRouters, HopLimit: hopLimit, ICMP: body}
}
