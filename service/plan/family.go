package plan

import (
	"net/netip"
	"strings"
)

// ForIPv6 tells whether the operation on links or packet filter concerns IPv6 alone.
func ForIPv6(op Op) bool {
	sysctl := func(key string) bool { return strings.HasPrefix(key, "net/ipv6/") }
	prefix := func(p netip.Prefix) bool { return p.Addr().Is6() }
	switch o := op.(type) {
	case AddRule:
		return o.Rule.IPv6
	case DeleteRule:
		return o.Rule.IPv6
	case ReplaceRoute:
		return prefix(o.Route.Dst)
	case DeleteRoute:
		return prefix(o.Route.Dst)
	case AddAddress:
		return prefix(o.Prefix)
	case DeleteAddress:
		return prefix(o.Prefix)
	case AddSetEntry:
		return prefix(o.Entry.Prefix)
	case DeleteSetEntry:
		return prefix(o.Entry.Prefix)
	case SetSysctl:
		return sysctl(o.Key)
	case BorrowSysctl:
		return sysctl(o.Key)
	case ReturnSysctl:
		return sysctl(o.Key)
	case AddProxy, DeleteProxy, CreatePair, JoinBridge, LeaveBridge, FlushPort, DeletePair, SetGuard, DeleteGuard:
		return true
	}
	return false
}
