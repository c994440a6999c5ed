package message

import (
	"net/netip"
	"slices"
)

// SolicitedNode is the group at which an address is asked for (RFC 4291 2.7.1).
func SolicitedNode(target netip.Addr) netip.Addr {
	group, a := solicitedNode.Addr().As16(), target.As16()
	copy(group[13:], a[13:])
	return netip.AddrFrom16(group)
}

// Frame returns the solicitation as MAC sends it, to the Ethernet address of a neighbour or of the group. A LinkLayer
// of 0, or of an unspecified source (RFC 4861 4.3), is left out, and so is a Nonce of nil; one whose
// length isn't 6 bytes and a multiple of 8 is padded with zeros (RFC 3971 5.3.2).
func (s *NeighborSolicitation) Frame(to MAC) Frame {
	body := neighbor(TypeNeighborSolicitation, 0, s.Target)
	if s.LinkLayer != (MAC{}) && !s.From.IsUnspecified() {
		body = append(body, linkLayerOption(optionSourceLinkLayer, s.LinkLayer)...)
	}
	const maxNonce = 255*optionUnit - 2
	if s.Nonce != nil && len(s.Nonce) <= maxNonce {
		option := append([]byte{optionNonce, 0}, s.Nonce...)
		option = append(option, make([]byte, -len(option)&(optionUnit-1))...)
		option[1] = byte(len(option) / optionUnit)
		body = append(body, option...)
	}
	return neighborFrame(s.MAC, to, s.From, s.To, body)
}

// Solicit returns a solicitation for the target from a neighbour that has both addresses; with the
// target's MAC address 0, it goes to the group, else to the target alone.
func Solicit(from netip.Addr, mac MAC, target netip.Addr, at MAC) Frame {
	s := NeighborSolicitation{From: from, To: target, Target: target, MAC: mac, LinkLayer: mac}
	if at == (MAC{}) {
		s.To = SolicitedNode(target)
		at = Multicast(s.To)
	}
	return s.Frame(at)
}

// Frame returns the advertisement as MAC sends it, to the Ethernet address. A LinkLayer of 0 is left out.
func (a *NeighborAdvertisement) Frame(to MAC) Frame {
	var flags byte
	for _, f := range []struct {
		set bool
		bit byte
	}{{a.Router, flagRouter}, {a.Solicited, flagSolicited}, {a.Override, flagOverride}} {
		if f.set {
			flags |= f.bit
		}
	}
	body := neighbor(TypeNeighborAdvertisement, flags, a.Target)
	if a.LinkLayer != (MAC{}) {
		body = append(body, linkLayerOption(optionTargetLinkLayer, a.LinkLayer)...)
	}
	return neighborFrame(a.MAC, to, a.From, a.To, body)
}

func neighbor(kind, flags byte, target netip.Addr) []byte {
	body := make([]byte, neighborLen)
	body[0], body[atNeighborFlags] = kind, flags
	address := target.As16()
	copy(body[atTarget:], address[:])
	return slices.Clip(body)
}

func neighborFrame(source, destination MAC, from, to netip.Addr, body []byte) Frame {
	return Frame{Source: source, Destination: destination, From: from.WithZone(""), To: to.WithZone(""), HopLimit: hopLimit, ICMP: body}
}
