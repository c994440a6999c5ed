package firewall

import (
	"fmt"

	"gangway/service/plan"
)

// chains6 returns all our IPv6 chains, in the order in which they are installed. bridged is as for chains,
// and its rules concern the frames that guests of one bridge send each other, and what goes through an
// IPv6-only link, on both its bridges.
func chains6(bridged bool) []chain {
	var (
		wayOut     = "-m set --match-set " + plan.SetOut6 + " src,dst"
		wayIn      = "-m set --match-set " + plan.SetOut6 + " dst,src"
		translated = "-m set --match-set " + plan.SetNAT6 + " src,dst"
	)
	return []chain{
		{"mangle", forwardChain, "FORWARD", clampMSS(wayOut, wayIn)},
		{"nat", postroutingChain, "POSTROUTING", []string{
			translated + " -j MASQUERADE",
		}},
		{"filter", inputChain, "INPUT", input6()},
		{"filter", forwardChain, "FORWARD", forward6(bridged)},
	}
}

// input6 returns the rules of what the host gets from guests.
func input6() []string {
	notFromGuest := "-m set ! --match-set " + plan.SetLocal6 + " src,src"
	return []string{
		// The answer to a forged source would leave by the uplink. Neighbour discovery and MLD have a
		// link-local source, or none yet (RFC 4861 4.3, RFC 3810 5.2.13).
		"! -s fe80::/10 " + fromBridge + " " + notFromGuest + " -m addrtype ! --src-type UNSPEC -j DROP",
		// The host's addresses may be of the guests' prefix, and IPv6 has no check of them on the way in: what
		// comes from one would be part of the host's talk with itself.
		"! -s fe80::/10 " + fromBridge + " -m addrtype --src-type LOCAL -j DROP",
		notServices + " -j RETURN",
		"-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
		"-p ipv6-icmp -j ACCEPT",
		"-p tcp -j REJECT --reject-with tcp-reset",
		"-j REJECT --reject-with icmp6-port-unreachable",
	}
}

// forward6 returns the rules of what is routed.
func forward6(bridged bool) []string {
	var (
		amongBridges = fmt.Sprintf("-m devgroup --src-group %#x/%#x --dst-group %#x/%#x",
			plan.GroupBridge, plan.GroupMask, plan.GroupBridge, plan.GroupMask)

		fromGuest    = "-m set --match-set " + plan.SetLocal6 + " src,src"
		notFromGuest = "-m set ! --match-set " + plan.SetLocal6 + " src,src"
		toGuest      = "-m set --match-set " + plan.SetLocal6 + " dst,dst"
		wayOut       = "-m set --match-set " + plan.SetOut6 + " src,dst"
		wayIn        = "-m set --match-set " + plan.SetOut6 + " dst,src"
		reachable    = "-m set --match-set " + plan.SetInbound6 + " dst,dst"
		borrowed     = "-m set --match-set " + plan.SetBorrowed6 + " src,src"
		pair         = plan.PairPrefix + "+"
	)
	var rules []string
	if bridged {
		rules = append(rules,
			fromBridge+" -m physdev --physdev-is-bridged -j ACCEPT",
			"-m physdev --physdev-in "+pair+" --physdev-is-bridged -j ACCEPT",
			"-m physdev --physdev-out "+pair+" --physdev-is-bridged -j ACCEPT")
		// What passes through a bridge of somebody else's isn't routed by the host.
		borrowed += " -m physdev ! --physdev-is-bridged"
	}
	return append(rules,
		toGuest+" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
		// No answer to a forged source: it would leave by the uplink, for a victim there.
		fromBridge+" "+notFromGuest+" -j DROP",
		// As in INPUT: there is no rp_filter, and the kernel forwards what claims to come from the host itself.
		fromBridge+" -m addrtype --src-type LOCAL -j DROP",
		// Translation leaves invalid packets alone: they would show the private source.
		fromBridge+" -m conntrack --ctstate INVALID -j DROP",
		// Guests reach each other through their router, since the prefix isn't on-link. Which bridges
		// may is said by the filter of what is routed (forwardRules).
		amongBridges+" "+fromGuest+" "+toGuest+" -j ACCEPT",
		fromGuest+" "+wayOut+" -j ACCEPT",
		notFromBridge+" "+reachable+" -j ACCEPT",
		// A guest that has an address of the uplink's link answers as any station there (RFC 4890 4.3.1).
		"-p ipv6-icmp "+notFromBridge+" "+wayIn+" "+toGuest+" -m icmp6 --icmpv6-type 128 -j ACCEPT",
		// A reset refuses a new connection at once on every system, and isn't rate-limited as
		// ICMPv6 errors are.
		"-p tcp "+fromBridge+" -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j REJECT --reject-with tcp-reset",
		// Prohibited, and not "no route" (RFC 4443 3.1, code 0): it is a filter that refuses it, and code 1 is
		// one that clients give up for at once over UDP, too, and try IPv4. Where no route leads out, the
		// kernel says so itself. What stands survives it, as with IPv4.
		fromBridge+" -j REJECT --reject-with icmp6-adm-prohibited",
		toBridge+" -j REJECT --reject-with icmp6-adm-prohibited",
		// It forwards for guests alone: nobody else may use the host as a router because of us.
		borrowed+" -j DROP",
	)
}
