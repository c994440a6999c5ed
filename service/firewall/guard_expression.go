package firewall

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// expression is a step of an nftables rule, as the kernel takes it. All use its first register. A step
// that can't be carried out, for want of the bytes that it is to load, ends the rule: it doesn't match.
type expression = attribute

// ownRule is a rule of a table of ours: what it is for, the steps, and what becomes of the packet.
type ownRule struct {
	name  string
	steps []expression
	// needs says what the kernel may lack for it, "" if nothing that it could have lost.
	needs string
}

// rule puts a rule together of conditions and what follows from them.
func rule(name string, parts ...[]expression) ownRule {
	r := ownRule{name: name}
	for _, p := range parts {
		r.steps = append(r.steps, p...)
	}
	return r
}

func step(name string, data ...attribute) expression {
	return nested(unix.NFTA_LIST_ELEM, text(unix.NFTA_EXPR_NAME, name), nested(unix.NFTA_EXPR_DATA, data...))
}

func value(kind uint16, data []byte) attribute {
	return nested(kind, attribute{unix.NFTA_DATA_VALUE, data})
}

// field is bytes of the frame: from a header's beginning, how many.
type field struct{ header, offset, length uint32 }

// Fields of Ethernet II, IPv6 (RFC 8200 3), the fragment header (RFC 8200 4.5) that stands directly
// behind it, and what is behind all extension headers.
var (
	destinationMAC     = field{unix.NFT_PAYLOAD_LL_HEADER, 0, 6}
	destinationMACByte = field{unix.NFT_PAYLOAD_LL_HEADER, 0, 1}
	sourceMACByte      = field{unix.NFT_PAYLOAD_LL_HEADER, 6, 1}
	// The kernel puts a VLAN tag that it has taken off back in its place when this is loaded.
	etherType = field{unix.NFT_PAYLOAD_LL_HEADER, 12, 2}

	payloadLength   = field{unix.NFT_PAYLOAD_NETWORK_HEADER, 4, 2}
	nextHeader      = field{unix.NFT_PAYLOAD_NETWORK_HEADER, 6, 1}
	sourceAddress   = field{unix.NFT_PAYLOAD_NETWORK_HEADER, 8, 16}
	destinationByte = field{unix.NFT_PAYLOAD_NETWORK_HEADER, 24, 1}
	fragmentNext    = field{unix.NFT_PAYLOAD_NETWORK_HEADER, 40, 1}
	fragmentOffset  = field{unix.NFT_PAYLOAD_NETWORK_HEADER, 42, 2}

	icmpType        = field{unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1}
	icmpHeader      = field{unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 4}
	sourcePort      = field{unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2}
	destinationPort = field{unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2}
	udpEnd          = field{unix.NFT_PAYLOAD_TRANSPORT_HEADER, 4, 4}
	tcpFlags        = field{unix.NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1}
	tcpEnd          = field{unix.NFT_PAYLOAD_TRANSPORT_HEADER, 16, 4}
)

// load is a condition by itself: that the bytes are there.
func load(f field) []expression {
	return []expression{step("payload", number(unix.NFTA_PAYLOAD_DREG, unix.NFT_REG_1), number(unix.NFTA_PAYLOAD_BASE, f.header),
		number(unix.NFTA_PAYLOAD_OFFSET, f.offset), number(unix.NFTA_PAYLOAD_LEN, f.length))}
}

func compare(operation uint32, with []byte) expression {
	return step("cmp", number(unix.NFTA_CMP_SREG, unix.NFT_REG_1), number(unix.NFTA_CMP_OP, operation), value(unix.NFTA_CMP_DATA, with))
}

func masked(mask []byte) expression {
	return step("bitwise", number(unix.NFTA_BITWISE_SREG, unix.NFT_REG_1), number(unix.NFTA_BITWISE_DREG, unix.NFT_REG_1),
		number(unix.NFTA_BITWISE_LEN, uint32(len(mask))), value(unix.NFTA_BITWISE_MASK, mask), value(unix.NFTA_BITWISE_XOR, make([]byte, len(mask))))
}

func is(f field, with ...byte) []expression { return append(load(f), compare(unix.NFT_CMP_EQ, with)) }
func isNot(f field, with ...byte) []expression {
	return append(load(f), compare(unix.NFT_CMP_NEQ, with))
}
func below(f field, with ...byte) []expression {
	return append(load(f), compare(unix.NFT_CMP_LT, with))
}

func between(f field, least, most byte) []expression {
	return append(load(f), compare(unix.NFT_CMP_GTE, []byte{least}), compare(unix.NFT_CMP_LTE, []byte{most}))
}

// bits compares those of the field that mask has.
func bits(f field, mask []byte, operation uint32, with []byte) []expression {
	return append(load(f), masked(mask), compare(operation, with))
}

// within is the condition that the IPv6 source is of the prefix.
func within(p netip.Prefix) []expression {
	mask := make([]byte, 16)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	address := p.Masked().Addr().As16()
	return bits(sourceAddress, mask, unix.NFT_CMP_EQ, address[:])
}

func meta(key uint32) expression {
	return step("meta", number(unix.NFTA_META_DREG, unix.NFT_REG_1), number(unix.NFTA_META_KEY, key))
}

// The upper protocol is what stands behind all extension headers but the authentication header (RFC 4302),
// behind which the kernel doesn't look. It can't be told of what isn't a whole IPv6 header chain, and of
// a fragment other than the first whose fragment header names an extension header (Linux
// net/ipv6/exthdrs_core.c, ipv6_find_hdr).
func upper(protocol byte) []expression {
	return []expression{meta(unix.NFT_META_L4PROTO), compare(unix.NFT_CMP_EQ, []byte{protocol})}
}

// upperNone is the condition that the upper protocol can be told and is none of those.
func upperNone(protocols ...byte) []expression {
	steps := []expression{meta(unix.NFT_META_L4PROTO)}
	for _, p := range protocols {
		steps = append(steps, compare(unix.NFT_CMP_NEQ, []byte{p}))
	}
	return steps
}

// hasFragmentHeader is the condition that one is found in the header chain.
func hasFragmentHeader() []expression {
	return []expression{
		step("exthdr", number(unix.NFTA_EXTHDR_DREG, unix.NFT_REG_1), attribute{unix.NFTA_EXTHDR_TYPE, []byte{unix.IPPROTO_FRAGMENT}},
			number(unix.NFTA_EXTHDR_OFFSET, 0), number(unix.NFTA_EXTHDR_LEN, 1), number(unix.NFTA_EXTHDR_FLAGS, unix.NFT_EXTHDR_F_PRESENT)),
		compare(unix.NFT_CMP_EQ, []byte{1}),
	}
}

// toItself is the condition that the frame is addressed to the interface that it comes in by.
func toItself() []expression {
	return []expression{meta(unix.NFT_META_PKTTYPE), compare(unix.NFT_CMP_EQ, []byte{unix.PACKET_HOST})}
}

func verdict(code int32, attributes ...attribute) expression {
	return step("immediate", number(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT), nested(unix.NFTA_IMMEDIATE_DATA,
		nested(unix.NFTA_DATA_VERDICT, append([]attribute{number(unix.NFTA_VERDICT_CODE, uint32(code))}, attributes...)...)))
}

func counter() expression { return step("counter") }

// What becomes of a frame. What isn't accepted is counted.
func accept() []expression { return []expression{verdict(nfAccept)} }
func drop() []expression   { return []expression{counter(), verdict(nfDrop)} }
func goTo(chain string) []expression {
	return []expression{verdict(unix.NFT_GOTO, text(unix.NFTA_VERDICT_CHAIN, chain))}
}

// answerReset answers with a TCP reset, answerUnreachable with an ICMPv6 destination unreachable of that code
// (RFC 4443 3.1). The kernel answers no reset, no frame to a group address, and nothing whose checksum
// is wrong.
func answerReset() []expression {
	return []expression{counter(), step("reject", number(unix.NFTA_REJECT_TYPE, unix.NFT_REJECT_TCP_RST))}
}
func answerUnreachable(code byte) []expression {
	return []expression{counter(), step("reject", number(unix.NFTA_REJECT_TYPE, unix.NFT_REJECT_ICMP_UNREACH),
		attribute{unix.NFTA_REJECT_ICMP_CODE, []byte{code}})}
}
