package plan

import (
	"fmt"
	"net/netip"
	"strings"

	"gangway/service/vnet"
)

// The operations of the link room for guests whose router is their bridge.
type (
	// AddProxy has the kernel answer neighbour solicitations for the address on the link (an
	// NTF_PROXY neighbour with our protocol), DeleteProxy ends that.
	AddProxy struct {
		Link    string
		Address netip.Addr
	}
	DeleteProxy struct {
		Link    string
		Address netip.Addr
	}
)

// The operations of the firewall room.
type (
	// SetForward puts the filter in the place of any older one, in one transaction.
	SetForward struct{ Spec ForwardSpec }
	// DeleteForward removes it.
	DeleteForward struct{}
)

// ForwardSpec is what is filtered of routed packets by what iptables has no match for. Names are
// sorted.
type ForwardSpec struct {
	// Hairpin are the bridges whose guests reach each other through it, as their router tells them
	// to. What is routed from a bridge of ours to one of ours otherwise is dropped (IPv6).
	Hairpin []string
	// Follow are the bridges whose guests go where the host goes when that is a tunnel: what would leave
	// by one of Plain is dropped in the moment in which the host's own packets to the same
	// destination would leave by something else (both families). Where the host has no route, nothing is dropped.
	Follow []string
	// Plain are the interfaces that are no tunnels.
	Plain []string
}

// Digest identifies it.
func (s ForwardSpec) Digest() string { return digest(s) }

// The operations of the neighbour discovery room.
type (
	// Serve makes the network's bridge the router of its guests, in the way that Spec says, in the place
	// of an earlier way. Nothing is sent before Announce, but answers; guests are told of those
	// prefixes alone that are on record (Teach).
	Serve struct{ Spec ServeSpec }
	// StopServing ends it. Guests are told by Withdraw, before.
	StopServing struct{ Network string }
)

// ServeSpec is how a network's guests are served by their bridge.
type ServeSpec struct {
	Network, Bridge string
	// Address is the bridge's link-local address, MAC its MAC address: together they are the router
	// that guests know.
	Address netip.Addr
	MAC     string
	// Uplink is the interface that they go out by.
	Uplink string
	// Proxy tells that guests are neighbours on the uplink's link: what its routers advertise is passed
	// on, solicitations are relayed both ways, guests' addresses are learned.
	Proxy bool
	// Prefixes are those that the bridge advertises of itself; with Proxy none, the uplink's are
	// passed on then.
	Prefixes []netip.Prefix
	// OnLink tells that Prefixes are the bridge's own link; otherwise addresses in them are learned, one by one.
	OnLink bool
	// Default tells that the bridge is a default router; with Proxy, if one of the uplink's is.
	Default bool
	// MTU is the most that fits on the way out, in bytes.
	MTU int
	// Host are addresses of the host's own in Prefixes, or in those of the uplink: no guest's.
	Host []netip.Addr
}

// Digest identifies it.
func (s ServeSpec) Digest() string { return digest(s) }

// Router is the bridge as the guests know it.
func (s ServeSpec) Router() vnet.Router { return vnet.Router{Address: s.Address, MAC: s.MAC} }

// Room says who carries it out.
func (AddProxy) Room() Room      { return LinkRoom }
func (DeleteProxy) Room() Room   { return LinkRoom }
func (SetForward) Room() Room    { return FirewallRoom }
func (DeleteForward) Room() Room { return FirewallRoom }
func (Serve) Room() Room         { return NDPRoom }
func (StopServing) Room() Room   { return NDPRoom }

func (o AddProxy) String() string { return fmt.Sprintf("answer for %s on %s", o.Address, o.Link) }
func (o DeleteProxy) String() string {
	return fmt.Sprintf("no longer answer for %s on %s", o.Address, o.Link)
}
func (o SetForward) String() string {
	text := "filter what is routed"
	for _, part := range []struct {
		what  string
		names []string
	}{{"hairpin", o.Spec.Hairpin}, {"following the host", o.Spec.Follow}, {"no tunnels", o.Spec.Plain}} {
		if len(part.names) > 0 {
			text += ", " + part.what + ": " + strings.Join(part.names, " ")
		}
	}
	return text
}
func (DeleteForward) String() string { return "delete the filter of what is routed" }
func (o Serve) String() string {
	s := o.Spec
	text := "serve " + s.Network + " on " + s.Bridge
	switch {
	case s.Proxy:
		text += " as a proxy of the neighbours on " + s.Uplink
	case len(s.Prefixes) > 0:
		text += " with " + joined(s.Prefixes)
		if s.OnLink {
			text += " on link"
		}
		text += " by " + s.Uplink
	}
	if !s.Default {
		text += ", no default router"
	}
	return text + fmt.Sprintf(", mtu %d", s.MTU)
}
func (o StopServing) String() string { return "stop serving " + o.Network }
