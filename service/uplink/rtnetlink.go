package uplink

import (
	"net/netip"

	"gangway/service/vnet"
)

// isForeignUplink tells whether a link that NetworkManager does not configure is an uplink: by
// a default route of its own, which bridges and taps of others' virtual networks do not have.
// Of tunnels also those that lead to certain destinations only. A tap that a
// virtual machine is plugged into is told apart by having no more than its own subnet.
func isForeignUplink(l vnet.Link, s *survey, egress, egress6 int) bool {
	if l.Up && isTunnel(l) && s.hasGlobal6(l.Index) { // it may be one for IPv6 alone
		if _, ok := s.default6(l.Index); ok || l.Index == egress6 {
			return true
		}
	}
	if !l.Up || !s.hasGlobal4(l.Index) {
		return false
	}
	if isTunnel(l) {
		_, ok := s.tunnelDefault(l.Index)
		return ok || l.Index == egress || s.hasOwnRoutes(l.Index)
	}
	_, ok := s.mainDefault(l.Index)
	return ok || l.Index == egress
}

// kernelKind is the kind of an uplink by what the kernel knows of it; hardware has those of
// which only the driver tells.
func kernelKind(l vnet.Link, hardware map[string]vnet.UplinkKind) vnet.UplinkKind {
	switch {
	case isTunnel(l):
		return vnet.VPN
	case isModem(l):
		return vnet.WWAN
	}
	switch l.Kind {
	case "":
		if kind, ok := hardware[l.Name]; ok {
			return kind
		}
		if l.Type == 1 { // ARPHRD_ETHER
			return vnet.Ethernet
		}
	case "veth", "macvlan", "ipvlan", "macsec":
		return vnet.Ethernet
	case "bridge", "openvswitch":
		return vnet.BridgeKind
	case "bond", "team":
		return vnet.Bond
	case "vlan":
		return vnet.VLAN
	case "ppp":
		return vnet.PPP
	}
	return vnet.OtherUplink
}

// addResolvConf gives those uplinks that NetworkManager doesn't configure the nameservers
// of resolv.conf. Whose they are isn't to be known; where NetworkManager is there as well, they are
// taken to be the primary's.
func addResolvConf(out *vnet.Uplinks, pic *picture, foreign map[string]bool) {
	var servers []netip.Addr
	for _, a := range pic.resolv {
		if !a.IsLoopback() {
			servers = append(servers, a)
		}
	}
	for i := range out.List {
		u := &out.List[i]
		if !foreign[u.Interface] || !u.Default4 || pic.nm && u.Interface != out.Primary {
			continue
		}
		for _, a := range servers {
			u.Nameservers = append(u.Nameservers, zoned(a, u.Interface))
		}
	}
}
