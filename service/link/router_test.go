package link

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// What is relied on of the kernel where a bridge is its guests' IPv6 router.

// A bridge's link-local address, which is the guests' router, is usable as soon as there is a port: nothing asks
// whether somebody else has it, even where all interfaces are told to.
func TestBridgeAddressIsUsableAtOnce(t *testing.T) {
	if !isolated(t) {
		return
	}
	set(t, "net/ipv6/conf/all/accept_dad", "1")
	k := newKernel(t)
	index := veth(t, "gwtp", "gwtq")
	// The end of the guest stays silent itself.
	set(t, "net/ipv6/conf/gwtq/disable_ipv6", "1")
	set(t, "net/ipv6/conf/gwtp/disable_ipv6", "1")
	guest := newWire(t, "gwtq")
	apply(t, k, bridgeOp("gwt0"), plan.AddPort{Bridge: "gwt0", Interface: "gwtp", Index: index}, plan.SetLinkUp{Name: "gwt0"})
	bridge := findLink(t, observe(t, k), "gwt0")
	address := linkLocal(t, bridge)
	eventually(t, "the link-local address", func() bool { return usable(t, k, address) })
	probes := 0
	guest.solicit(address)
	guest.hear("the answer", func(h heard) bool {
		if h.body[0] == neighbourSolicit && h.source.IsUnspecified() {
			probes++
		}
		return h.body[0] == neighbourAdvert
	})
	if probes > 0 {
		t.Errorf("%d probes for duplicates of the address", probes)
	}
}

// The bridge says in neighbour advertisements whether it is a router, by its own forwarding alone.
func TestBridgeSaysThatItIsARouter(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	index := veth(t, "gwtp", "gwtq")
	apply(t, k, bridgeOp("gwt0"), plan.AddPort{Bridge: "gwt0", Interface: "gwtp", Index: index}, plan.SetLinkUp{Name: "gwt0"})
	address := linkLocal(t, findLink(t, observe(t, k), "gwt0"))
	for _, c := range []struct {
		key, value string
		router     bool
	}{{"force_forwarding", "0", false}, {"force_forwarding", "1", false}, {"forwarding", "1", true}, {"forwarding", "0", false}} {
		apply(t, k, plan.SetSysctl{Key: "net/ipv6/conf/gwt0/" + c.key, Value: c.value})
		w := newWire(t, "gwtq") // which has heard nothing yet
		var flags byte
		eventually(t, "the bridge's address", func() bool { return usable(t, k, address) })
		w.solicit(address)
		for target := (netip.Addr{}); target != address; {
			target, flags = w.advertised()
		}
		if router := flags&0x80 != 0; router != c.router {
			t.Errorf("with %s %s: router is %v", c.key, c.value, router)
		}
	}
}

// Guests of a bridge that reach each other through it are redirected (RFC 4861 8.2): IPv6 has no send_redirects.
func TestRouterRedirects(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	index := veth(t, "gwtp", "gwtq")
	apply(t, k, bridgeOp("gwt0"), plan.AddPort{Bridge: "gwt0", Interface: "gwtp", Index: index}, plan.SetLinkUp{Name: "gwt0"})
	bridge := findLink(t, observe(t, k), "gwt0")
	mac, err := net.ParseMAC(bridge.MAC)
	must(t, err)
	from, to := netip.MustParseAddr("2001:db8:a::5"), netip.MustParseAddr("2001:db8:a::6")
	set(t, "net/ipv6/conf/gwt0/force_forwarding", "1")
	eventually(t, "the bridge's address", func() bool { return usable(t, k, linkLocal(t, bridge)) })
	for _, a := range []netip.Addr{from, to} {
		apply(t, k, plan.ReplaceRoute{Route: vnet.Route{Table: 254, Dst: netip.PrefixFrom(a, 128), Metric: 1024, Link: bridge.Index,
			Protocol: plan.Protocol, Type: vnet.RouteUnicast}})
	}
	w := newWire(t, "gwtq")
	ip(t, "neighbour", "add", from.String(), "lladdr", w.mac.String(), "dev", "gwt0")
	ip(t, "neighbour", "add", to.String(), "lladdr", "02:00:00:00:00:06", "dev", "gwt0")
	w.send(w.icmp(mac, from, to, 64, []byte{128, 0, 0, 0, 0, 1, 0, 1}))
	m := w.hear("a redirect", func(h heard) bool { return h.body[0] == 137 && len(h.body) >= 40 })
	if target, _ := netip.AddrFromSlice(m.body[8:24]); target != to || m.destination != from {
		t.Errorf("%s is redirected to %s", m.destination, target)
	}
}

// linkLocal is the address that is made of the bridge's MAC address.
func linkLocal(t *testing.T, bridge vnet.Link) netip.Addr {
	t.Helper()
	mac, err := net.ParseMAC(bridge.MAC)
	must(t, err)
	return vnet.LinkLocal(mac)
}

func usable(t *testing.T, k *Kernel, address netip.Addr) bool {
	t.Helper()
	return slices.ContainsFunc(observe(t, k).Addresses, func(a vnet.Address) bool {
		return a.Prefix.Addr() == address && !a.Tentative
	})
}
