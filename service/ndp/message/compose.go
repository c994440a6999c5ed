package message

import (
	"encoding/binary"
	"math"
	"slices"
	"time"
)

// MinimumMTU is what every link carries, in bytes (RFC 8200 5).
const MinimumMTU = 1280

// maxBody is what fits there behind the IPv6 header.
const maxBody = MinimumMTU - ipv6Len

// Header is what a router advertisement says that isn't an option (RFC 4861 4.2). It has no
// flags: a router that is composed offers neither DHCPv6 nor a preference.
type Header struct {
	// CurHopLimit is 0 for what hosts have.
	CurHopLimit uint8
	// RouterLifetime is cut to whole seconds, and to 65535 of them; 0 is no default router's.
	RouterLifetime time.Duration
	// RetransTimer is cut to whole milliseconds; 0 is unspecified.
	RetransTimer time.Duration
}

// Compose returns the bodies of the advertisements in which a router says all of this: one, if it fits
// 1280 bytes with the IPv6 header, else as many as needed, each with the header (RFC 4861 6.2.3).
// Prefixes come first, the rest follows in its order. An option that fits no packet is left out.
func Compose(h Header, options [][]byte) [][]byte {
	header := make([]byte, advertisementLen)
	header[0], header[atCurHopLimit] = TypeRouterAdvertisement, h.CurHopLimit
	setRouterLifetime(header, uint16(min(max(0, h.RouterLifetime/time.Second), math.MaxUint16)))
	binary.BigEndian.PutUint32(header[atRetransTimer:], uint32(min(max(0, h.RetransTimer.Milliseconds()), math.MaxUint32)))
	sorted := slices.Clone(options)
	slices.SortStableFunc(sorted, func(a, b []byte) int { return order(a) - order(b) })
	bodies := [][]byte{slices.Clone(header)}
	for _, o := range sorted {
		if len(o) < optionUnit || len(o) != optionUnit*int(o[1]) || advertisementLen+len(o) > maxBody {
			continue
		}
		if len(bodies[len(bodies)-1])+len(o) > maxBody {
			bodies = append(bodies, slices.Clone(header))
		}
		last := &bodies[len(bodies)-1]
		*last = append(*last, o...)
	}
	return bodies
}

func order(option []byte) int {
	if len(option) > 0 && option[0] == optionPrefix {
		return 0
	}
	return 1
}

// Option returns the prefix information option (RFC 4861 4.6.2), lifetimes cut to whole seconds. The
// prefix must be IPv6.
func (p Prefix) Option() []byte {
	option := withdrawn(p.Prefix.Masked())
	option[atPrefixFlags] = 0
	if p.OnLink {
		option[atPrefixFlags] |= flagOnLink
	}
	if p.Autonomous {
		option[atPrefixFlags] |= flagAutonomous
	}
	binary.BigEndian.PutUint32(option[atValid:], lifetime(p.Valid))
	binary.BigEndian.PutUint32(option[atPreferred:], lifetime(p.Preferred))
	return option
}

func lifetime(d time.Duration) uint32 { return uint32(min(max(0, d/time.Second), infinity)) }

// SourceLinkLayerOption tells the router's MAC address (RFC 4861 4.6.1), MTUOption the link's MTU in
// bytes (RFC 4861 4.6.4).
func SourceLinkLayerOption(mac MAC) []byte { return linkLayerOption(optionSourceLinkLayer, mac) }
func MTUOption(mtu uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{optionMTU, 1, 0, 0}, mtu)
}
