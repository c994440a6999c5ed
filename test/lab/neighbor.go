package lab

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// DADMessage builds the solicitation by which a host asks whether an address is free (RFC 4862 5.4.2), as an IPv6 packet. nonce, 6 bytes,
// tells one's own from another's (RFC 7527 4.1); nil leaves the option out.
func DADMessage(target netip.Addr, nonce []byte) []byte {
	src, dst := netip.IPv6Unspecified(), SolicitedNode(target)
	body := append(make([]byte, 4), target.AsSlice()...)
	if nonce != nil {
		body = append(append(body, optNonce, byte((2+len(nonce)+7)/8)), nonce...)
		body = append(body, make([]byte, (8-(2+len(nonce))%8)%8)...)
	}
	return IPv6(src, dst, protoICMPv6, 255, ICMPv6(src, dst, NeighborSolicitation, 0, body))
}

// AskFree sends the solicitation of DADMessage from the machine, whatever its kernel holds of the address.
func (m *Machine) AskFree(target netip.Addr, nonce []byte) error {
	return m.Send(Ethernet(MulticastMAC(SolicitedNode(target)), m.MAC, EtherIPv6, DADMessage(target, nonce)))
}

// Solicit asks, from an address that needn't be the machine's, all who may have the target.
func (m *Machine) Solicit(src, target netip.Addr) error {
	dst := SolicitedNode(target)
	return m.Send(Ethernet(MulticastMAC(dst), m.MAC, EtherIPv6, NeighborMessage(src, dst, NeighborSolicitation, 0, target, m.MAC)))
}

// Advertise tells all nodes unasked that the target is at the machine's MAC, with the override flag (RFC 4861 7.2.6), as if from src.
func (m *Machine) Advertise(src, target netip.Addr) error {
	return m.Send(Ethernet(MulticastMAC(AllNodes), m.MAC, EtherIPv6, NeighborMessage(src, AllNodes, NeighborAdvert, 0x20, target, m.MAC)))
}

// Resolve solicits the target from the machine's link-local address once, waits for an advertisement to it, and returns that and how long it
// took on the wire. The machine's kernel asks nothing, and needn't know.
func (m *Machine) Resolve(ctx context.Context, target netip.Addr) (Frame, time.Duration, error) {
	src := LinkLocal(m.MAC)
	wire, err := m.Capture(ctx, GuestInterface)
	if err != nil {
		return Frame{}, 0, err
	}
	defer wire.Close() // what was lost of other frames doesn't matter
	if err := m.Solicit(src, target); err != nil {
		return Frame{}, 0, err
	}
	asked, err := wire.Wait(ctx, All(Outgoing, IsNS, About(target)))
	if err != nil {
		return Frame{}, 0, err
	}
	answer, err := wire.Wait(ctx, All(Incoming, IsNA, About(target), DstIn(netip.PrefixFrom(src, 128))))
	if err != nil {
		return Frame{}, 0, fmt.Errorf("cannot resolve %q from %q: %w", target, m.Name, err)
	}
	return answer, answer.Time.Sub(asked.Time), nil
}
