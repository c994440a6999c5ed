package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"gangway/service/vnet"
)

// The operations of the link room for IPv6-only links: a veth pair, of which one end, the inner, is a
// port of a network's bridge, and the other, the outer, of an uplink's.
type (
	// CreatePair makes the pair, both ends down, with aliases, without IPv6 of their own
	// (disable_ipv6, before anything else), and without a bridge. Names that are taken by
	// interfaces without these aliases are an error. One that is half made is completed.
	CreatePair struct {
		Network                string
		Inner, Outer           string
		InnerAlias, OuterAlias string
		InnerMAC, OuterMAC     string
		MTU                    int
	}
	// JoinBridge makes a link of ours a port of the bridge, taking it out of any other in the
	// same step, isolated or not (as the bridge port flag), and leaves it up or down as it is.
	JoinBridge struct {
		Link, Bridge string
		Isolated     bool
	}
	// LeaveBridge takes a link of ours down and out of its bridge, whichever that is.
	LeaveBridge struct{ Link string }
	// FlushPort forgets the MAC addresses learned behind a bridge port (IFLA_BRPORT_FLUSH).
	FlushPort struct{ Link string }
	// SetLinkDown takes a link of ours down.
	SetLinkDown struct{ Name string }
	// DeletePair deletes the pair by its inner end, if that has the alias.
	DeletePair struct{ Inner, Alias string }
)

// The operations of the firewall room for IPv6-only links.
type (
	// SetGuard puts the guard at both ends' ingress, in the place of any older one, in one
	// transaction; the ends must exist.
	SetGuard struct{ Spec GuardSpec }
	// DeleteGuard removes it.
	DeleteGuard struct{ Network string }
)

// GuardSpec is what is dropped on an IPv6-only link.
type GuardSpec struct {
	Network      string
	Inner, Outer string
	// Bridge is set instead of Inner and Outer where the network has no such link, because its bridge is its
	// router: the guard stands at the bridge's own ingress then, and is about Retired alone.
	Bridge string
	// Hosts are, when the network's guests may reach nothing of the host but its services, the MAC
	// addresses of all uplinks' bridges, sorted, so that a change of uplink needs no other guard: only
	// what isn't a new connection passes to them then, and ICMPv6. Empty otherwise.
	Hosts []string
	// Retired are prefixes that guests may hold addresses of and that aren't the link's: what has
	// such a source is refused (RFC 7084 L-14: destination unreachable, code 5).
	Retired []netip.Prefix
}

// Digest identifies the guard; it begins with Hosts and a #.
func (s GuardSpec) Digest() string { return strings.Join(s.Hosts, ",") + "#" + digest(s) }

// suffices tells whether a guard of that digest is whole and, where that matters, keeps guests from the host
// with the MAC address.
func (s GuardSpec) suffices(standing, host string) bool {
	hosts, _, whole := strings.Cut(standing, "#")
	return whole && (len(s.Hosts) == 0 || slices.Contains(strings.Split(hosts, ","), host))
}

// The operations of the neighbour discovery room.
type (
	// Teach records, on disk, that the network's guests are about to hear these routers of the
	// uplink's.
	Teach struct {
		Network, Uplink string
		Routers         []vnet.Router
	}
	// Withdraw makes the guests of a network forget: for each router its prefixes, and, with
	// Default, the router itself. The final advertisements go to each guest port of the bridge
	// alone, and again after 0.25, 3, 6 and 9 s, to whoever asks, and to new ports for two hours.
	Withdraw struct {
		Network, Bridge string
		Routers         []vnet.Router
		Why             string
	}
	// Announce tells the guests of a network at once of the uplink's routers, from what was heard
	// of them, tells the link where the guests are now, and asks its routers to speak.
	Announce struct {
		Network, Bridge, Uplink string
		// Inner is the IPv6-only link's end in the network's bridge.
		Inner string
	}
	// Forget forgets what was taught to the guests of a network that has none any more.
	Forget struct{ Network string }
)

// The operations of the gate's room.
type (
	// StartGate starts the watchdog, StopGate ends it.
	StartGate struct{}
	StopGate  struct{}
)

// Room says who carries it out.
func (CreatePair) Room() Room  { return LinkRoom }
func (JoinBridge) Room() Room  { return LinkRoom }
func (LeaveBridge) Room() Room { return LinkRoom }
func (FlushPort) Room() Room   { return LinkRoom }
func (SetLinkDown) Room() Room { return LinkRoom }
func (DeletePair) Room() Room  { return LinkRoom }
func (SetGuard) Room() Room    { return FirewallRoom }
func (DeleteGuard) Room() Room { return FirewallRoom }
func (Teach) Room() Room       { return NDPRoom }
func (Withdraw) Room() Room    { return NDPRoom }
func (Announce) Room() Room    { return NDPRoom }
func (Forget) Room() Room      { return NDPRoom }
func (StartGate) Room() Room   { return GateRoom }
func (StopGate) Room() Room    { return GateRoom }

func (o CreatePair) String() string {
	return fmt.Sprintf("create IPv6-only link %s to %s of %s, mtu %d", o.Inner, o.Outer, o.Network, o.MTU)
}
func (o JoinBridge) String() string {
	text := fmt.Sprintf("join %s to %s", o.Link, o.Bridge)
	if o.Isolated {
		text += ", isolated"
	}
	return text
}
func (o LeaveBridge) String() string { return "take " + o.Link + " out of its bridge" }
func (o FlushPort) String() string   { return "forget who is behind " + o.Link }
func (o SetLinkDown) String() string { return "set " + o.Name + " down" }
func (o DeletePair) String() string  { return "delete IPv6-only link " + o.Inner }
func (o SetGuard) String() string {
	text := fmt.Sprintf("guard IPv6-only link %s to %s", o.Spec.Inner, o.Spec.Outer)
	if o.Spec.Bridge != "" {
		text = "guard what guests hand to " + o.Spec.Bridge
	}
	if len(o.Spec.Hosts) > 0 {
		text += ", no new connection to " + strings.Join(o.Spec.Hosts, ", ")
	}
	if len(o.Spec.Retired) > 0 {
		text += ", nothing from " + joined(o.Spec.Retired)
	}
	return text
}
func (o DeleteGuard) String() string { return "delete the guard of " + o.Network }
func (o Teach) String() string {
	return fmt.Sprintf("teach %s the routers of %s: %s", o.Network, o.Uplink, routersText(o.Routers))
}
func (o Withdraw) String() string {
	return fmt.Sprintf("withdraw from %s: %s (%s)", o.Network, routersText(o.Routers), o.Why)
}
func (o Announce) String() string {
	return fmt.Sprintf("announce the routers of %s to %s", o.Uplink, o.Network)
}
func (o Forget) String() string  { return "forget what was taught to " + o.Network }
func (StartGate) String() string { return "start the gate" }
func (StopGate) String() string  { return "stop the gate" }

func routersText(list []vnet.Router) string {
	parts := make([]string, len(list))
	for i, r := range list {
		text := r.Address.String()
		if !r.Default {
			text += " (not as default router)"
		}
		for _, p := range r.Prefixes {
			text += " " + p.String()
		}
		parts[i] = text
	}
	return strings.Join(parts, ", ")
}
