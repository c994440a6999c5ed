package plan

import (
	"slices"
	"strings"
)

// Concerns returns the network that the operation is for, "" when it concerns all.
func Concerns(op Op, networks []Decision) string {
	byBridge := func(ifname string) string {
		for _, d := range networks {
			if d.Bridge == ifname {
				return d.Name
			}
		}
		return ""
	}
	byPort := func(ifname string) string {
		for _, d := range networks {
			if slices.Contains(d.ports, ifname) {
				return d.Name
			}
		}
		return ""
	}
	byPair := func(ifname string) string {
		for _, d := range networks {
			if inner, outer := PairNames(d.Name); ifname == inner || ifname == outer {
				return d.Name
			}
		}
		return ""
	}
	if strings.HasPrefix(linkOf(op), PairPrefix) {
		return byPair(linkOf(op))
	}
	switch o := op.(type) {
	case CreatePair:
		return o.Network
	case SetGuard:
		return o.Spec.Network
	case DeleteGuard:
		return o.Network
	case Teach:
		return o.Network
	case Withdraw:
		return o.Network
	case Announce:
		return o.Network
	case Forget:
		return o.Network
	case Serve:
		return o.Spec.Network
	case StopServing:
		return o.Network
	case CreateBridge:
		return strings.TrimPrefix(o.Alias, AliasPrefix)
	case DeleteBridge:
		return strings.TrimPrefix(o.Alias, AliasPrefix)
	case SetLinkUp:
		if network := byBridge(o.Name); network != "" {
			return network
		}
		return byPort(o.Name)
	case IsolatePort:
		return byPort(o.Interface)
	case BouncePort:
		return byPort(o.Interface)
	case SetSysctl: // net/FAMILY/conf/BRIDGE/KEY
		if parts := strings.Split(o.Key, "/"); len(parts) == 5 {
			return byBridge(parts[3])
		}
	case SetMTU:
		return byBridge(o.Name)
	case SetMAC:
		return byBridge(o.Name)
	case SetGroup:
		return byBridge(o.Name)
	case SetMulticastSnooping:
		return byBridge(o.Name)
	case AddAddress:
		return byBridge(o.Link)
	case DeleteAddress:
		return byBridge(o.Link)
	case AddPort:
		return byBridge(o.Bridge)
	case RemovePort:
		return byBridge(o.Bridge)
	case AddRule:
		return byBridge(o.Rule.IIF)
	case DeleteRule:
		return byBridge(o.Rule.IIF)
	case AddSetEntry:
		return bySubnet(o.Entry.Prefix.String(), networks)
	case DeleteSetEntry:
		return bySubnet(o.Entry.Prefix.String(), networks)
	case StartServer:
		return o.Spec.Network
	case StopServer:
		return o.Network
	case SetHosts:
		return o.Spec.Network
	case SetUpstreams:
		return o.Network
	case RememberSubnet:
		return o.Network
	case RememberPrefix:
		return o.Network
	case ForgetLeases:
		return o.Network
	}
	return ""
}

func bySubnet(subnet string, networks []Decision) string {
	for _, d := range networks {
		if d.Subnet.String() == subnet {
			return d.Name
		}
	}
	return ""
}

// linkOf returns the name of the link that the operation changes, where that may be an end of an
// IPv6-only link.
func linkOf(op Op) string {
	switch o := op.(type) {
	case JoinBridge:
		return o.Link
	case LeaveBridge:
		return o.Link
	case FlushPort:
		return o.Link
	case SetLinkDown:
		return o.Name
	case SetLinkUp:
		return o.Name
	case SetMTU:
		return o.Name
	case DeletePair:
		return o.Inner
	}
	return ""
}
