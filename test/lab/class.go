package lab

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"time"
)

// SrcIn is a predicate for Count: the frame's IP source lies within the prefix.
func SrcIn(p netip.Prefix) func(Frame) bool {
	return func(f Frame) bool { return f.SrcIP().IsValid() && p.Contains(f.SrcIP()) }
}

// DstIn is SrcIn for the destination.
func DstIn(p netip.Prefix) func(Frame) bool {
	return func(f Frame) bool { return f.DstIP().IsValid() && p.Contains(f.DstIP()) }
}

// FromMAC holds for frames whose Ethernet source is one of these.
func FromMAC(macs ...net.HardwareAddr) func(Frame) bool {
	return func(f Frame) bool {
		return slices.ContainsFunc(macs, func(m net.HardwareAddr) bool { return bytes.Equal(m, f.Src()) })
	}
}

// ToMAC is FromMAC for the destination.
func ToMAC(macs ...net.HardwareAddr) func(Frame) bool {
	return func(f Frame) bool {
		return slices.ContainsFunc(macs, func(m net.HardwareAddr) bool { return bytes.Equal(m, f.Dst()) })
	}
}

// HasType holds for frames of that EtherType.
func HasType(etherType uint16) func(Frame) bool {
	return func(f Frame) bool { return f.EtherType() == etherType }
}

// IsICMPv6 holds for ICMPv6 messages of one of these types, behind whatever extension headers.
func IsICMPv6(types ...int) func(Frame) bool {
	return func(f Frame) bool { return slices.Contains(types, f.ICMPv6Type()) }
}

// IsRA and IsRedirect hold for what only a router may send (RFC 6105), IsDHCPv6Server for what only a DHCPv6 server
// or relay may (RFC 7610): from port 547, to a client's port.
func IsRA(f Frame) bool       { return f.ICMPv6Type() == RouterAdvertisement }
func IsRedirect(f Frame) bool { return f.ICMPv6Type() == Redirect6 }
func IsDHCPv6Server(f Frame) bool {
	src, dst := f.UDPPorts()
	return f.EtherType() == EtherIPv6 && (src == 547 || dst == 546)
}

// IsNS and IsNA hold for neighbour solicitations and advertisements; IsDAD for a solicitation that asks, from no address, whether its target is free
// (RFC 4862 5.4.2).
func IsNS(f Frame) bool  { return f.ICMPv6Type() == NeighborSolicitation }
func IsNA(f Frame) bool  { return f.ICMPv6Type() == NeighborAdvert }
func IsDAD(f Frame) bool { return IsNS(f) && f.SrcIP().IsUnspecified() }

// RAWith holds for router advertisements that have a prefix information option of exactly this prefix, whatever its lifetimes.
func RAWith(p netip.Prefix) func(Frame) bool {
	return func(f Frame) bool {
		ra, ok := f.RA()
		return ok && slices.ContainsFunc(ra.Prefixes, func(i PrefixInfo) bool { return i.Prefix == p.Masked() })
	}
}

// About holds for neighbour solicitations and advertisements whose target is the address.
func About(a netip.Addr) func(Frame) bool {
	return func(f Frame) bool {
		n, ok := f.Neighbor()
		return ok && n.Type != Redirect6 && n.Target == a
	}
}

// Incoming and Outgoing hold for what the capturing host received, and sent.
func Incoming(f Frame) bool { return !f.Outgoing }
func Outgoing(f Frame) bool { return f.Outgoing }

// After holds for frames seen at or after the time.
func After(t time.Time) func(Frame) bool {
	return func(f Frame) bool { return !f.Time.Before(t.Round(0)) } // frames' times have no monotonic part
}

// Not is the opposite of a predicate; All holds if all do.
func Not(pred func(Frame) bool) func(Frame) bool { return func(f Frame) bool { return !pred(f) } }
func All(preds ...func(Frame) bool) func(Frame) bool {
	return func(f Frame) bool {
		return !slices.ContainsFunc(preds, func(pred func(Frame) bool) bool { return !pred(f) })
	}
}

// Classes counts the frames by what the function calls them; "" is not counted.
func (c *Capture) Classes(class func(Frame) string) map[string]int {
	counts := map[string]int{}
	for _, f := range c.Frames() {
		if name := class(f); name != "" {
			counts[name]++
		}
	}
	return counts
}

// Matching returns the frames that satisfy all predicates.
func (c *Capture) Matching(preds ...func(Frame) bool) []Frame {
	return slices.DeleteFunc(c.Frames(), Not(All(preds...)))
}
