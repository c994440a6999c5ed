package firewall

import (
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"

	"gangway/service/plan"
)

// The chain of the filter of what is routed, in either table. The name must never change.
const forwardFilterChain = "forward"

// forwardHook is before the one of iptables' chains, so that what is dropped here isn't accepted there first.
var forwardHook = hook{"filter", unix.NF_INET_FORWARD, -1, nfAccept, ""}

// tunnelFilter returns the filter's chain of both families, in table inet.
//
//	follow, to plain, but the host's own
//	packets to there leave by another ..... is dropped
//
// The rule asks the kernel for each packet where one of the host's own to the same destination would go
// ("fib daddr", without the interfaces: rules for a bridge's packets have no say in it). So it holds from the
// moment at which the kernel has a VPN's route, whichever way that is put above the others, before anybody
// has noticed and moved guests.
func tunnelFilter(spec plan.ForwardSpec) ownChain {
	c := ownChain{name: forwardFilterChain, at: forwardHook}
	if len(spec.Follow) > 0 && len(spec.Plain) > 0 {
		plain := single(spec.Plain)
		c.sets = []nameSet{{1, 1, single(spec.Follow)}, {2, 1, plain}, {3, 1, plain}} // each for one rule's one use
		r := rule("past a tunnel", []expression{meta(unix.NFT_META_IIFNAME)}, c.sets[0].in(), []expression{meta(unix.NFT_META_OIFNAME)}, c.sets[1].in(),
			hostLeavesBy(), c.sets[2].notIn(), drop())
		r.needs = "fib for nf_tables (CONFIG_NFT_FIB_INET)"
		c.rules = append(c.rules, r)
	}
	c.rules = append(c.rules, rule("the rest", pass()))
	return c
}

// bridgeFilter returns the filter's chain of IPv6, in table ip6. bridged is as for chains.
//
//	from BR to BR, hairpin ................ passes    guests of one network reach each other
//	from BR to BR, bridged ................ passes    not routed; only where br_netfilter is there
//	from BR to BR ......................... is dropped
//
// It has a table of its own, because the match that tells what is bridged is iptables', and not to be had in
// family inet (seen with Linux 6.18: ENOENT).
func bridgeFilter(spec plan.ForwardSpec, bridged bool) ownChain {
	c := ownChain{name: forwardFilterChain, at: forwardHook}
	among := join(inGroup(unix.NFT_META_IIFGROUP), inGroup(unix.NFT_META_OIFGROUP))
	if len(spec.Hairpin) > 0 {
		pairs := nameSet{id: 4, width: 2}
		for _, name := range spec.Hairpin {
			pairs.members = append(pairs.members, []string{name, name})
		}
		c.sets = []nameSet{pairs}
		c.rules = append(c.rules, rule("hairpin", among, bothNames(), pairs.in(), pass()))
	}
	if bridged {
		r := rule("bridged", among, isBridged(), pass())
		r.needs = "match physdev for nf_tables (CONFIG_NFT_COMPAT, CONFIG_NETFILTER_XT_MATCH_PHYSDEV)"
		c.rules = append(c.rules, r)
	}
	c.rules = append(c.rules, rule("among bridges", among, drop()), rule("the rest", pass()))
	return c
}

// forwardEdition is edition for the filter.
var forwardEdition = sync.OnceValue(func() string {
	names := []string{"gway0"}
	spec := plan.ForwardSpec{Hairpin: names, Follow: names, Plain: names}
	return editionOf([]ownChain{tunnelFilter(spec), bridgeFilter(spec, true)})
})

func join(parts ...[]expression) (all []expression) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// pass lets a packet go on to the chains behind this one, and counts it.
func pass() []expression { return []expression{counter(), verdict(nfAccept)} }

// inGroup is the condition that an interface's link group is one of our bridges'.
func inGroup(key uint32) []expression {
	native := func(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
	return []expression{meta(key), masked(native(plan.GroupMask)), compare(unix.NFT_CMP_EQ, native(plan.GroupBridge))}
}

// bothNames loads the incoming interface's name and, behind it, the outgoing one's.
func bothNames() []expression {
	second := step("meta", number(unix.NFTA_META_DREG, unix.NFT_REG_2), number(unix.NFTA_META_KEY, unix.NFT_META_OIFNAME))
	return []expression{meta(unix.NFT_META_IIFNAME), second}
}

// hostLeavesBy is the condition that the host itself has a route to the destination, and loads the name of the
// interface that it leads to. Where there is none, the kernel clears the first four bytes of the register, and
// may leave the others as they were (Linux net/ipv4/netfilter/nft_fib_ipv4.c).
func hostLeavesBy() []expression {
	return []expression{
		step("fib", number(unix.NFTA_FIB_DREG, unix.NFT_REG_1), number(unix.NFTA_FIB_RESULT, unix.NFT_FIB_RESULT_OIFNAME),
			number(unix.NFTA_FIB_FLAGS, unix.NFTA_FIB_F_DADDR)),
		compare(unix.NFT_CMP_NEQ, make([]byte, 4)),
	}
}

// isBridged is the condition that the frame goes from port to port of a bridge. nf_tables can't tell it
// of a routed packet, so that iptables' match is asked (linux/netfilter/xt_physdev.h, struct
// xt_physdev_info: four names, inverted, options; as long as its alignment wants it).
func isBridged() []expression {
	const optionBridged, options, size = 4, 4*nameLength + 1, 4*nameLength + 8
	info := make([]byte, size)
	info[options] = optionBridged
	return []expression{step("match", text(unix.NFTA_MATCH_NAME, "physdev"), number(unix.NFTA_MATCH_REV, 0), attribute{unix.NFTA_MATCH_INFO, info})}
}
