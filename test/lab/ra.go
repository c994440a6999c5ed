package lab

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Forever is a lifetime without end: 0xffffffff on the wire.
const Forever time.Duration = math.MaxInt64

// RA is what a router advertises (RFC 4861 4.2). The zero value says nothing but that it is no default router:
// begin with DefaultRA.
type RA struct {
	HopLimit   uint8
	Managed    bool
	Other      bool
	Preference int // of the router: -1 low, 0, 1 high (RFC 4191 2.1)
	// RouterLifetime is in seconds, 0 to 65535; 0 means that it is no default router.
	RouterLifetime time.Duration
	// Reachable and Retrans are in milliseconds; 0 leaves them to the host.
	Reachable, Retrans time.Duration

	SourceLLA net.HardwareAddr // read from the wire only: radvd gives the interface's
	MTU       uint32           // 0 leaves the option out
	Prefixes  []PrefixInfo
	Routes    []RouteInfo
	RDNSS     []ServerInfo
	DNSSL     []SearchInfo
	PREF64    []PREF64Info
	// Unknown are further options as on the wire, each a multiple of 8 bytes that begins with its type and length.
	Unknown [][]byte

	// MinInterval and MaxInterval bound the time between two unsolicited advertisements, in seconds; radvd takes 3 and
	// 4 at least. Zero means 3 s and 10 s.
	MinInterval, MaxInterval time.Duration
	// Radvd is text for radvd's "interface" block.
	Radvd string
}

// PrefixInfo is a prefix information option (RFC 4861 4.6.2). Valid and Preferred are in seconds, or Forever.
type PrefixInfo struct {
	Prefix                            netip.Prefix
	OnLink, Autonomous, RouterAddress bool // L, A and R (RFC 6275 7.2)
	PreferPD                          bool // P (RFC 9762)
	Valid, Preferred                  time.Duration
}

// RouteInfo is a route information option (RFC 4191 2.3); Preference as in RA.
type RouteInfo struct {
	Prefix     netip.Prefix
	Preference int
	Lifetime   time.Duration
}

// ServerInfo is an RDNSS option, SearchInfo a DNSSL option (RFC 8106 5).
type ServerInfo struct {
	Servers  []netip.Addr
	Lifetime time.Duration
}
type SearchInfo struct {
	Domains  []string
	Lifetime time.Duration
}

// PREF64Info is a PREF64 option (RFC 8781 4): a prefix of 96, 64, 56, 48, 40 or 32 bits, a lifetime in steps of 8 s.
type PREF64Info struct {
	Prefix   netip.Prefix
	Lifetime time.Duration
}

// DefaultRA is the advertisement of an ordinary home router: default router for 30 minutes; of each prefix L and A,
// valid for a day, preferred for 4 hours; DNS on the router's address in the first.
func DefaultRA(prefixes ...netip.Prefix) RA {
	ra := RA{HopLimit: 64, RouterLifetime: 30 * time.Minute}
	for _, p := range prefixes {
		ra.Prefixes = append(ra.Prefixes, PrefixInfo{Prefix: p.Masked(), OnLink: true, Autonomous: true, Valid: 24 * time.Hour, Preferred: 4 * time.Hour})
	}
	if len(prefixes) > 0 {
		ra.RDNSS = []ServerInfo{{Servers: []netip.Addr{prefixes[0].Masked().Addr().Next()}, Lifetime: 30 * time.Minute}}
	}
	return ra
}

// ManagedRA is the advertisement of a network that has each host ask DHCPv6 for its single address (SiteOptions.DHCPv6): M and O are set, and no
// prefix is there to make an address of; the prefix is on link all the same.
func ManagedRA(prefix netip.Prefix) RA {
	ra := DefaultRA(prefix)
	ra.Managed, ra.Other, ra.Prefixes[0].Autonomous = true, true, false
	return ra
}

// needsOurs tells that radvd cannot say it, so that the lab has to send it itself. radvd 2.19, which Debian 12 has, lacks PREF64.
func (ra RA) needsOurs() bool {
	return len(ra.PREF64) > 0 || len(ra.Unknown) > 0 || slices.ContainsFunc(ra.Prefixes, func(p PrefixInfo) bool { return p.PreferPD })
}

func (ra RA) intervals() (least, most time.Duration) {
	least, most = ra.MinInterval, ra.MaxInterval
	if most == 0 {
		most = 10 * time.Second
	}
	if least == 0 {
		least = min(3*time.Second, most*3/4)
	}
	return least, most
}

// radvd renders the configuration of radvd.conf(5).
func (ra RA) radvd(ifname string) string {
	var b strings.Builder
	least, most := ra.intervals()
	fmt.Fprintf(&b, "interface %s {\nAdvSendAdvert on;\nMinRtrAdvInterval %d;\nMaxRtrAdvInterval %d;\nAdvDefaultLifetime %d;\nAdvDefaultPreference %s;\n",
		ifname, int(least.Seconds()), int(most.Seconds()), int(ra.RouterLifetime.Seconds()), preferenceName(ra.Preference))
	fmt.Fprintf(&b, "AdvManagedFlag %s;\nAdvOtherConfigFlag %s;\nAdvCurHopLimit %d;\nAdvLinkMTU %d;\nAdvReachableTime %d;\nAdvRetransTimer %d;\n",
		onOff(ra.Managed), onOff(ra.Other), ra.HopLimit, ra.MTU, ra.Reachable.Milliseconds(), ra.Retrans.Milliseconds())
	for _, p := range ra.Prefixes {
		fmt.Fprintf(&b, "prefix %s {\nAdvOnLink %s;\nAdvAutonomous %s;\nAdvRouterAddr %s;\nAdvValidLifetime %s;\nAdvPreferredLifetime %s;\nDeprecatePrefix off;\n};\n",
			p.Prefix, onOff(p.OnLink), onOff(p.Autonomous), onOff(p.RouterAddress), radvdTime(p.Valid), radvdTime(p.Preferred))
	}
	for _, r := range ra.Routes {
		fmt.Fprintf(&b, "route %s {\nAdvRouteLifetime %s;\nAdvRoutePreference %s;\nRemoveRoute off;\n};\n", r.Prefix, radvdTime(r.Lifetime), preferenceName(r.Preference))
	}
	for _, s := range ra.RDNSS {
		fmt.Fprintf(&b, "RDNSS %s {\nAdvRDNSSLifetime %s;\nFlushRDNSS off;\n};\n", words(s.Servers), radvdTime(s.Lifetime))
	}
	for _, s := range ra.DNSSL {
		fmt.Fprintf(&b, "DNSSL %s {\nAdvDNSSLLifetime %s;\nFlushDNSSL off;\n};\n", words(s.Domains), radvdTime(s.Lifetime))
	}
	fmt.Fprintf(&b, "%s\n};\n", ra.Radvd)
	return b.String()
}

func words[T any](list []T) string { return strings.Trim(fmt.Sprint(list), "[]") }

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

func preferenceName(p int) string { return [...]string{"low", "medium", "high"}[1+min(max(p, -1), 1)] }

func radvdTime(d time.Duration) string {
	if d == Forever {
		return "infinity"
	}
	return fmt.Sprint(int(d.Seconds()))
}

// Types of neighbour discovery options.
const (
	optSourceLLA = 1
	optTargetLLA = 2
	optPrefix    = 3
	optMTU       = 5
	optNonce     = 14
	optRoute     = 24
	optRDNSS     = 25
	optDNSSL     = 31
	optPREF64    = 38
)

// ndOptions walks the options (RFC 4861 4.6) up to the first that goes beyond the end; what it yields is type and body.
func ndOptions(b []byte) iter.Seq2[uint8, []byte] {
	return func(yield func(uint8, []byte) bool) {
		for len(b) >= 8 {
			size := 8 * int(b[1])
			if size == 0 || size > len(b) || !yield(b[0], b[2:size]) {
				return
			}
			b = b[size:]
		}
	}
}

// Marshal renders an advertisement from the type on, with a zero checksum.
func (ra RA) Marshal() ([]byte, error) {
	flags := wirePreference(ra.Preference)
	if ra.Managed {
		flags |= 0x80
	}
	if ra.Other {
		flags |= 0x40
	}
	b := []byte{RouterAdvertisement, 0, 0, 0, ra.HopLimit, flags}
	b = binary.BigEndian.AppendUint16(b, uint16(ra.RouterLifetime.Seconds()))
	b = binary.BigEndian.AppendUint32(b, uint32(ra.Reachable.Milliseconds()))
	b = binary.BigEndian.AppendUint32(b, uint32(ra.Retrans.Milliseconds()))
	if ra.SourceLLA != nil {
		b = append(append(b, optSourceLLA, 1), ra.SourceLLA...)
	}
	if ra.MTU != 0 {
		b = binary.BigEndian.AppendUint32(append(b, optMTU, 1, 0, 0), ra.MTU)
	}
	for _, p := range ra.Prefixes {
		b = p.append(b)
	}
	for _, r := range ra.Routes {
		units := (r.Prefix.Bits() + 63) / 64
		b = append(b, optRoute, byte(1+units), byte(r.Prefix.Bits()), wirePreference(r.Preference))
		b = append(wireSeconds(b, r.Lifetime), r.Prefix.Masked().Addr().AsSlice()[:8*units]...)
	}
	for _, s := range ra.RDNSS {
		b = wireSeconds(append(b, optRDNSS, byte(1+2*len(s.Servers)), 0, 0), s.Lifetime)
		for _, a := range s.Servers {
			b = append(b, a.AsSlice()...)
		}
	}
	for _, s := range ra.DNSSL {
		names := appendNames(nil, s.Domains)
		b = append(wireSeconds(append(b, optDNSSL, byte(1+len(names)/8), 0, 0), s.Lifetime), names...)
	}
	for _, p := range ra.PREF64 {
		code := slices.Index(pref64Sizes, p.Prefix.Bits())
		if code < 0 {
			return nil, fmt.Errorf("cannot advertise PREF64 %q: want one of the sizes %v", p.Prefix, pref64Sizes)
		}
		b = binary.BigEndian.AppendUint16(append(b, optPREF64, 2), uint16(p.Lifetime.Seconds())&^7|uint16(code))
		b = append(b, p.Prefix.Masked().Addr().AsSlice()[:12]...)
	}
	return append(b, slices.Concat(ra.Unknown...)...), nil
}

var pref64Sizes = []int{96, 64, 56, 48, 40, 32}

func (p PrefixInfo) append(b []byte) []byte {
	flags := byte(0)
	for i, set := range []bool{p.OnLink, p.Autonomous, p.RouterAddress, p.PreferPD} {
		if set {
			flags |= 0x80 >> i
		}
	}
	b = wireSeconds(append(b, optPrefix, 4, byte(p.Prefix.Bits()), flags), p.Valid)
	b = append(wireSeconds(b, p.Preferred), 0, 0, 0, 0)
	return append(b, p.Prefix.Masked().Addr().AsSlice()...)
}

func wirePreference(p int) byte { return byte(p&3) << 3 }

func wireSeconds(b []byte, d time.Duration) []byte {
	if d == Forever {
		return binary.BigEndian.AppendUint32(b, math.MaxUint32)
	}
	return binary.BigEndian.AppendUint32(b, uint32(d.Seconds()))
}

func appendNames(b []byte, domains []string) []byte {
	for _, d := range domains {
		for label := range strings.SplitSeq(d, ".") {
			b = append(append(b, byte(len(label))), label...)
		}
		b = append(b, 0)
	}
	return append(b, make([]byte, (8-len(b)%8)%8)...)
}
