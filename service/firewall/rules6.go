package firewall

import (
	"fmt"

	"gangway/service/plan"
)

// chains6 returns all our IPv6 chains. bridged is as for chains, and its rules concern the frames that guests
// of one bridge send each other, and what goes through an IPv6-only link, on both its bridges.
func chains6(bridged bool) []chain {
	var (
		fromBridge  = fmt.Sprintf("-m devgroup --src-group %#x/%#x", plan.GroupBridge, plan.GroupMask)
		toBridge    = fmt.Sprintf("-m devgroup --dst-group %#x/%#x", plan.GroupBridge, plan.GroupMask)
		notServices = fmt.Sprintf("-m devgroup ! --src-group %#x/%#x",
			plan.GroupBridge|plan.GroupServices, plan.GroupMask|plan.GroupServices)
		pair = plan.PairPrefix + "+"
	)
	forward := []string{}
	if bridged {
		forward = append(forward,
			fromBridge+" -m physdev --physdev-is-bridged -j ACCEPT",
			"-m physdev --physdev-in "+pair+" --physdev-is-bridged -j ACCEPT",
			"-m physdev --physdev-out "+pair+" --physdev-is-bridged -j ACCEPT")
	}
	return []chain{
		{"filter", inputChain, "INPUT", []string{
			notServices + " -j RETURN",
			"-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
			"-p ipv6-icmp -j ACCEPT",
			"-p tcp -j REJECT --reject-with tcp-reset",
			"-j REJECT --reject-with icmp6-port-unreachable",
		}},
		{"filter", forwardChain, "FORWARD", append(forward,
			// Nothing tells a forged source here, and the answer to one would leave by the uplink.
			fromBridge+" -j DROP",
			toBridge+" -j REJECT --reject-with icmp6-adm-prohibited",
		)},
	}
}
