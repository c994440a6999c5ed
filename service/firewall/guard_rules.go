package firewall

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"gangway/service/plan"
)

// The chains of a guard are named after the network and one of these. They must never change.
const (
	innerSuffix   = "-inner"
	outerSuffix   = "-outer"
	bridgeSuffix  = "-bridge"
	refusedSuffix = "-refused"
)

// Those of a guard of an IPv6-only link, and of one at a bridge. The first has most rules.
var (
	linkSuffixes   = []string{outerSuffix, innerSuffix, refusedSuffix}
	bridgeSuffixes = []string{bridgeSuffix, refusedSuffix}
)

// policyOf is what becomes of what no rule of a chain decides on. The one at a bridge, which is in the way of
// all that guests want of the host, doesn't close it when somebody flushes the chain.
func policyOf(suffix string) uint32 {
	if suffix == bridgeSuffix {
		return nfAccept
	}
	return nfDrop
}

// Protocol numbers that package unix lacks: Mobility (RFC 6275), HIP (RFC 7401), Shim6 (RFC 5533).
const (
	protocolMobility = 135
	protocolHIP      = 139
	protocolShim6    = 140
)

// ICMPv6 types (RFC 4443, RFC 4861) and code.
const (
	icmpInformational   = 128 // the first type that is no error
	routerSolicitation  = 133
	routerAdvertisement = 134
	redirect            = 137
	codePolicyFail      = 5
)

const (
	dhcpv6Client = 546
	dhcpv6Server = 547
)

// guardChains returns a guard's chains. answer tells whether what has a retired source is answered; it
// is only dropped otherwise.
//
// At the ingress of a bridge that is its guests' router, where what they hand up to the host comes by:
//
//	not IPv6 ............................ is accepted
//	retired source ...................... to the chain below, once for each prefix
//	the rest ............................ is accepted
//
// On an IPv6-only link what is dropped is counted, by the rules in this order. At the inner end:
//
//	not IPv6 ............................ also what has a VLAN tag, or IPv6 behind LLC
//
// At the outer end:
//
//	not IPv6
//	from a group address
//	to the link's own end ............... the bridge would pass it up to the host
//	retired source ...................... to the chain below, once for each prefix
//	to the host: other than TCP, ICMPv6 . \
//	to the host: fragment of TCP ........ | whose flags can't be told    \ these four only with
//	to the host: new connection ......... | SYN without ACK              / GuardSpec.Hosts, each
//	to the host by a group address ...... / UDP would be taken from it
//	behind AH, Mobility, HIP, Shim6 ..... which hide what follows
//	fragment header behind another ...... \ so that all is where it is looked for; three rules
//	fragment of a header chain .......... / are of that name
//	fragment with less than a header .... RFC 7112; two rules, the second for TCP
//	router advertisement ................ \ RFC 6105, RFC 7113
//	redirect ............................ /
//	fragment of neighbour discovery ..... RFC 6980
//	from a DHCPv6 server or relay ....... \ RFC 7610
//	to a DHCPv6 client .................. /
//	header chain not whole .............. and whatever else isn't accepted
//
// What has a retired source:
//
//	errors, neighbour discovery, multicast  are dropped
//	TCP ................................... is answered by a reset
//	the rest .............................. by destination unreachable, code 5 (RFC 7084 L-14)
//
// Of a fragmented packet everything up to the upper header's end has to be in its first fragment, which
// is only looked for directly behind the fragment header, and that directly behind the IPv6 header. The
// kernel doesn't hold the header chain against the payload length here, so that with any more freedom
// the upper header that it sees could stand in an Ethernet trailer, which no receiver reads, and the
// true one in the next fragment.
//
// TCP to the host is judged by its flags alone: a bridge needn't have connection tracking.
func guardChains(spec plan.GuardSpec, hosts []net.HardwareAddr, answer bool) []ownChain {
	refused := ownChain{name: spec.Network + refusedSuffix, rules: refusedRules(answer)}
	base := func(suffix, device string, rules []ownRule) ownChain {
		return ownChain{name: spec.Network + suffix, at: ingress(device, policyOf(suffix)), rules: rules}
	}
	if spec.Bridge != "" {
		return []ownChain{base(bridgeSuffix, spec.Bridge, bridgeRules(spec)), refused}
	}
	inner := []ownRule{
		rule("IPv6", is(etherType, 0x86, 0xdd), accept()),
		rule("not IPv6", drop()),
	}
	return []ownChain{base(innerSuffix, spec.Inner, inner), base(outerSuffix, spec.Outer, outerRules(spec, hosts)), refused}
}

func bridgeRules(spec plan.GuardSpec) []ownRule {
	rules := []ownRule{rule("not IPv6", isNot(etherType, 0x86, 0xdd), accept())}
	return append(append(rules, retiredRules(spec)...), rule("the rest", accept()))
}

func retiredRules(spec plan.GuardSpec) (rules []ownRule) {
	for _, p := range spec.Retired {
		rules = append(rules, rule("retired: "+p.String(), within(p), goTo(spec.Network+refusedSuffix)))
	}
	return rules
}

func outerRules(spec plan.GuardSpec, hosts []net.HardwareAddr) []ownRule {
	var (
		group  = bits(destinationMACByte, []byte{1}, unix.NFT_CMP_EQ, []byte{1})
		icmp   = upper(unix.IPPROTO_ICMPV6)
		udp    = upper(unix.IPPROTO_UDP)
		tcp    = upper(unix.IPPROTO_TCP)
		direct = is(nextHeader, unix.IPPROTO_FRAGMENT)
		later  = bits(fragmentOffset, []byte{0xff, 0xf8}, unix.NFT_CMP_NEQ, []byte{0, 0})
	)
	rules := []ownRule{
		rule("not IPv6", isNot(etherType, 0x86, 0xdd), drop()),
		rule("from a group address", bits(sourceMACByte, []byte{1}, unix.NFT_CMP_EQ, []byte{1}), drop()),
		rule("to the link's own end", toItself(), drop()),
	}
	rules = append(rules, retiredRules(spec)...)
	for _, host := range hosts {
		toHost := is(destinationMAC, host...)
		rules = append(rules,
			rule("to the host: other than TCP, ICMPv6", toHost, upperNone(unix.IPPROTO_TCP, unix.IPPROTO_ICMPV6), drop()),
			rule("to the host: fragment of TCP", toHost, tcp, hasFragmentHeader(), drop()),
			// Linux takes SYN with almost any other flags for a new connection.
			rule("to the host: new connection", toHost, tcp, bits(tcpFlags, []byte{0x12}, unix.NFT_CMP_EQ, []byte{0x02}), drop()))
	}
	if len(hosts) > 0 {
		rules = append(rules, rule("to the host by a group address", group, isNot(destinationByte, 0xff), drop()))
	}
	return append(rules,
		// What most frames are is accepted early: nothing is hidden in front of it.
		rule("TCP", is(nextHeader, unix.IPPROTO_TCP), tcp, load(tcpEnd), accept()),
		rule("behind AH", upper(unix.IPPROTO_AH), drop()),
		rule("behind Mobility", upper(protocolMobility), drop()),
		rule("behind HIP", upper(protocolHIP), drop()),
		rule("behind Shim6", upper(protocolShim6), drop()),
		rule("fragment header behind another", hasFragmentHeader(), isNot(nextHeader, unix.IPPROTO_FRAGMENT), drop()),
		rule("fragment of a header chain", direct, is(fragmentNext, unix.IPPROTO_HOPOPTS), drop()),
		rule("fragment of a header chain", direct, between(fragmentNext, unix.IPPROTO_ROUTING, unix.IPPROTO_FRAGMENT), drop()),
		rule("fragment of a header chain", direct, is(fragmentNext, unix.IPPROTO_DSTOPTS), drop()),
		// Before the upper header is looked at: for a fragment without one Linux may load bytes of the
		// IPv6 header instead (seen with 6.18).
		rule("fragment", direct, later, upperNone(), accept()),
		rule("fragment with less than a header", direct, below(payloadLength, 0, 8+8), drop()),
		rule("fragment with less than a header", direct, tcp, below(payloadLength, 0, 8+20), drop()),
		rule("router advertisement", icmp, is(icmpType, routerAdvertisement), drop()),
		rule("redirect", icmp, is(icmpType, redirect), drop()),
		rule("fragment of neighbour discovery", direct, icmp, between(icmpType, routerSolicitation, redirect), drop()),
		rule("from a DHCPv6 server or relay", udp, is(sourcePort, dhcpv6Server>>8, dhcpv6Server&0xff), drop()),
		rule("to a DHCPv6 client", udp, is(destinationPort, dhcpv6Client>>8, dhcpv6Client&0xff), drop()),
		rule("ICMPv6", icmp, load(icmpHeader), accept()),
		rule("UDP", udp, load(udpEnd), accept()),
		rule("TCP", tcp, load(tcpEnd), accept()),
		rule("others", upperNone(unix.IPPROTO_ICMPV6, unix.IPPROTO_UDP, unix.IPPROTO_TCP), accept()),
		rule("header chain not whole", drop()),
	)
}

func refusedRules(answer bool) []ownRule {
	resets, unreachables := answerReset(), answerUnreachable(codePolicyFail)
	if !answer {
		resets, unreachables = drop(), drop()
	}
	icmp := upper(unix.IPPROTO_ICMPV6)
	return []ownRule{
		rule("retired: error", icmp, below(icmpType, icmpInformational), drop()),
		rule("retired: neighbour discovery", icmp, between(icmpType, routerSolicitation, redirect), drop()),
		rule("retired: multicast", is(destinationByte, 0xff), drop()),
		rule("retired: TCP", upper(unix.IPPROTO_TCP), resets),
		rule("retired", unreachables),
	}
}

// edition identifies the rules that this process would install: those of another, with the same spec,
// may differ.
var edition = sync.OnceValue(func() string {
	retired := []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}
	chains := guardChains(plan.GuardSpec{Retired: retired}, []net.HardwareAddr{bytes.Repeat([]byte{2}, 6)}, true)
	return editionOf(append(chains, guardChains(plan.GuardSpec{Bridge: "gway0", Retired: retired}, nil, true)...))
})

func editionOf(chains []ownChain) string {
	h := sha256.New()
	for _, c := range chains {
		for _, r := range c.rules {
			h.Write([]byte(r.name))
			for _, s := range r.steps {
				h.Write(s.value)
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:4])
}
