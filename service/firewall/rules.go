package firewall

import (
	"fmt"

	"gangway/service/plan"
)

// The names of our chains. These must never change: an older daemon's would be orphaned.
const (
	inputChain       = "GANGWAY-INPUT"
	forwardChain     = "GANGWAY-FORWARD"
	postroutingChain = "GANGWAY-POSTROUTING"
)

// How rules of both families tell where a packet comes from or goes to. notServices is for all but the bridges
// whose guests have the host's services alone.
var (
	fromBridge    = fmt.Sprintf("-m devgroup --src-group %#x/%#x", plan.GroupBridge, plan.GroupMask)
	notFromBridge = fmt.Sprintf("-m devgroup ! --src-group %#x/%#x", plan.GroupBridge, plan.GroupMask)
	toBridge      = fmt.Sprintf("-m devgroup --dst-group %#x/%#x", plan.GroupBridge, plan.GroupMask)
	notServices   = fmt.Sprintf("-m devgroup ! --src-group %#x/%#x",
		plan.GroupBridge|plan.GroupServices, plan.GroupMask|plan.GroupServices)
)

// clampMSS returns the rules that fit TCP's segments to the path, for what matches the way out and the way in.
func clampMSS(wayOut, wayIn string) []string {
	return []string{
		"-p tcp " + wayOut + " -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
		"-p tcp " + wayIn + " -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
	}
}

// chain is a chain of ours: its rules, and the built-in chain that jumps to it first.
type chain struct {
	table, name, hook string
	// rules are as iptables-save prints them, without "-A NAME ".
	rules []string
}

// jump returns the rule that leads from hook to the chain.
func (c chain) jump() string { return "-j " + c.name }

// chains returns all our chains, those of one table together, in the order in which they
// are installed: translation before the permission to leave. bridged tells that br_netfilter
// is there, and sends bridged frames through FORWARD. Its rule is left out otherwise: no frame
// would meet it, and the physdev match loads br_netfilter, which changes what happens to
// everybody's bridges (Linux net/netfilter/xt_physdev.c, physdev_mt_check).
func chains(bridged bool) []chain {
	var (
		fromGuest    = "-m set --match-set " + plan.SetLocal + " src,src"
		notFromGuest = "-m set ! --match-set " + plan.SetLocal + " src,src"
		toGuest      = "-m set --match-set " + plan.SetLocal + " dst,dst"
		toGateway    = "-m set --match-set " + plan.SetLocal + " dst,src"
		wayOut       = "-m set --match-set " + plan.SetOut + " src,dst"
		wayIn        = "-m set --match-set " + plan.SetOut + " dst,src"
		translated   = "-m set --match-set " + plan.SetNAT + " src,dst"
		reachable    = "-m set --match-set " + plan.SetInbound + " dst,dst"
	)

	forward := []string{}
	if bridged {
		// Docker's policy DROP would otherwise part guests on one bridge.
		forward = append(forward, fromBridge+" -m physdev --physdev-is-bridged -j ACCEPT")
	}
	forward = append(forward,
		toGuest+" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
		// No answer to a forged source: it would leave by the uplink, for a victim there.
		fromBridge+" "+notFromGuest+" -j DROP",
		// Translation leaves invalid packets alone: they would show the private source.
		fromBridge+" -m conntrack --ctstate INVALID -j DROP",
		fromGuest+" "+wayOut+" -j ACCEPT",
		notFromBridge+" "+reachable+" -j ACCEPT",
		// A reset refuses a new connection at once on every system, and isn't rate-limited as
		// ICMP errors are. A connection that stands is told by ICMP, which it survives
		// (RFC 1122 4.2.3.9): there may be a way out again in a moment.
		"-p tcp "+fromBridge+" -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j REJECT --reject-with tcp-reset",
		fromBridge+" -j REJECT --reject-with icmp-net-prohibited",
		toBridge+" -j REJECT --reject-with icmp-port-unreachable",
	)

	return []chain{
		{"mangle", forwardChain, "FORWARD", clampMSS(wayOut, wayIn)},
		{"mangle", postroutingChain, "POSTROUTING", []string{
			// A packet on its way into a veth or tap has its checksum still to be filled in by
			// hardware that isn't there. Sockets know; DHCP clients that read raw packets
			// (udhcpc, old dhclient) take it for broken.
			"-p udp " + toBridge + " -m udp --dport 68 -j CHECKSUM --checksum-fill",
		}},
		{"nat", postroutingChain, "POSTROUTING", []string{
			translated + " -j MASQUERADE",
		}},
		{"filter", inputChain, "INPUT", []string{
			"-p udp " + wayIn + " -m multiport --dports 53,67 -j DROP",
			"-p tcp " + wayIn + " -m tcp --dport 53 -j DROP",
			notFromBridge + " -j RETURN",
			"-p udp -m udp --dport 67 -j ACCEPT",
			// The answer to a forged source would leave by the uplink.
			notFromGuest + " -j DROP",
			"-p udp " + toGateway + " -m udp --dport 53 -j ACCEPT",
			"-p tcp " + toGateway + " -m tcp --dport 53 -j ACCEPT",
			"-p icmp -j ACCEPT",
			notServices + " -j RETURN",
			"-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
			"-p tcp -j REJECT --reject-with tcp-reset",
			"-j REJECT --reject-with icmp-port-unreachable",
		}},
		{"filter", forwardChain, "FORWARD", forward},
	}
}
