package ndp

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// The tests play the link room: l.pass routes to the guests that are known, and has the kernel answer for
// them on the uplink.

const (
	lanMAC    = "02:00:00:00:0a:01"
	bridgeLLA = "fe80::1"
)

// serving is a lab whose bridge is its guests' router.
type serving struct {
	*lab
	spec   plan.ServeSpec
	router string // the namespace of the uplink's
	// prefix is that of the uplink's link. Each test has its own: the host has a route to it.
	prefix             string
	host, lan, guestOn string // addresses there: the host's own, a neighbour's, and what SLAAC makes of guestMAC
}

// on is an address of the uplink's link.
func (s *serving) on(suffix string) string {
	return netip.MustParseAddr(strings.TrimSuffix(s.prefix, "/64") + suffix).String()
}

// radvdA is what the uplink's router says.
func (s *serving) radvdA() string {
	return "prefix " + s.prefix + " { }; RDNSS 2001:db8:a::53 { }; DNSSL a.example { }; AdvLinkMTU 1400"
}

// onProxy puts a network onto a link with the router A, as neighbours there.
func onProxy(t *testing.T, edit ...func(*Options)) (s *serving, up string) {
	t.Helper()
	l := newLab(t, edit...)
	up = l.uplink("a")
	s = &serving{lab: l, prefix: fmt.Sprintf("2001:db8:f:%s::/64", l.id)}
	s.host, s.lan, s.guestOn = s.on("100"), s.on("200"), s.on("ff:fe00:1")
	s.router = l.routerOf(up, routerA, macA)
	sh(l, `ip -n %s addr add %s/64 dev eth0 nodad`, s.router, s.on("1"))
	sh(l, `ip link set %[4]s down nomaster; ip link set %[1]s address %[3]s; cd /proc/sys/net/ipv6/conf; echo 1 >%[1]s/forwarding; echo 1 >%[1]s/proxy_ndp; echo 0 >/proc/sys/net/ipv6/neigh/%[1]s/proxy_delay
test ! -e %[1]s/force_forwarding || echo 1 >%[1]s/force_forwarding; echo 1 >all/forwarding
ip addr add %[2]s/64 dev %[1]s nodad`, up, s.host, macOf(l, up), l.inner)
	s.spec = s.bridgeAsRouter(l.network, l.bridge, up)
	return s, up
}

// bridgeAsRouter gives the bridge an address and returns how it serves as a proxy.
func (s *serving) bridgeAsRouter(network, bridge, up string) plan.ServeSpec {
	s.Helper()
	// With an address of its own: it had that of a port, and would have another's.
	sh(s, `ip link set %[1]s address %[3]s; cd /proc/sys/net/ipv6/conf/%[1]s; ip link set %[1]s addrgenmode none; echo 0 >accept_dad; echo 0 >disable_ipv6; echo 1 >forwarding
test ! -e force_forwarding || echo 1 >force_forwarding; ip addr add %[2]s/64 dev %[1]s nodad`, bridge, bridgeLLA, fmt.Sprintf("02:00:%02x:00:50:%s", bridge[0], s.id[len(s.id)-1:]+"0"))
	return plan.ServeSpec{Network: network, Bridge: bridge, Address: netip.MustParseAddr(bridgeLLA), MAC: macOf(s, bridge),
		Uplink: up, Proxy: true, Default: true, MTU: 1500, Host: []netip.Addr{netip.MustParseAddr(s.host)}}
}

func self(spec plan.ServeSpec, isDefault bool, prefixes ...string) vnet.Router {
	return known(spec.Address.String(), spec.MAC, isDefault, prefixes...)
}

// begin has the room serve the network as said.
func (s *serving) begin(spec plan.ServeSpec, prefixes ...string) {
	s.Helper()
	s.observe()
	s.apply(plan.Teach{Network: spec.Network, Uplink: spec.Uplink, Routers: []vnet.Router{self(spec, true, prefixes...)}}, plan.Serve{Spec: spec})
}

func (s *serving) announceIt(spec plan.ServeSpec) {
	s.Helper()
	s.apply(plan.Announce{Network: spec.Network, Bridge: spec.Bridge, Uplink: spec.Uplink})
}

// dump6 adds to a dump what it has of routes to guests and of proxied neighbours.
func dump6(t testing.TB) vnet.Kernel {
	t.Helper()
	k := dump(t)
	eventually(t, "routes that aren't interrupted", func() bool {
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Protocol: plan.Protocol}, netlink.RT_FILTER_PROTOCOL)
		k.Routes6 = nil
		for _, r := range routes {
			if a, ok := netip.AddrFromSlice(r.Dst.IP); ok {
				bits, _ := r.Dst.Mask.Size()
				k.Routes6 = append(k.Routes6, vnet.Route{Dst: netip.PrefixFrom(a, bits), Link: r.LinkIndex, Protocol: plan.Protocol, Type: vnet.RouteUnicast})
			}
		}
		neighbours, err2 := netlink.NeighProxyList(0, netlink.FAMILY_V6)
		k.Proxies = nil
		for _, n := range neighbours {
			if a, ok := netip.AddrFromSlice(n.IP); ok {
				k.Proxies = append(k.Proxies, vnet.Proxy{Address: a, Link: n.LinkIndex, Protocol: plan.Protocol})
			}
		}
		return err == nil && err2 == nil
	})
	return k
}

// pass observes, does what the plan does about guests of the networks, and observes again.
func (s *serving) pass(specs ...plan.ServeSpec) vnet.NDP {
	s.Helper()
	if specs == nil {
		specs = []plan.ServeSpec{s.spec}
	}
	k := dump6(s)
	have, err := s.room.Observe(s.Context(), &k, s.uplinks)
	must(s, err)
	for _, spec := range specs {
		bridge, _ := k.LinkByName(spec.Bridge)
		var wanted []netip.Addr
		for _, n := range have.Neighbours[spec.Network] {
			wanted = append(wanted, n.Address)
			sh(s, "ip route replace %[1]s/128 dev %[2]s proto %[3]d", n.Address, spec.Bridge, plan.Protocol)
			if spec.Proxy {
				sh(s, "ip neigh replace proxy %s dev %s", n.Address, spec.Uplink)
			}
		}
		for _, r := range k.Routes6 {
			if a := r.Dst.Addr(); r.Link == bridge.Index && !slices.Contains(wanted, a) {
				sh(s, "ip neigh del proxy %[1]s dev %[2]s 2>/dev/null || true; ip route del %[1]s/128 dev %[3]s", a, spec.Uplink, spec.Bridge)
			}
		}
	}
	k = dump6(s)
	have, err = s.room.Observe(s.Context(), &k, s.uplinks)
	must(s, err)
	return have
}

// knows tells what the network's guests are known to have, as text.
func (s *serving) knows(network string) string {
	s.Helper()
	var parts []string
	for _, n := range s.pass().Neighbours[network] {
		parts = append(parts, n.Address.String()+"="+n.MAC)
	}
	return strings.Join(parts, " ")
}

func (s *serving) awaitKnown(want string) {
	s.Helper()
	var have string
	defer func() {
		if s.Failed() {
			s.Logf("known: %q, not %q", have, want)
		}
	}()
	eventually(s, "what guests have", func() bool { have = s.knows(s.network); return have == want })
}

// station is a neighbour on the uplink's link.
func (l *lab) station(up, mac, address string) string {
	l.Helper()
	ns, port := l.namespace(up, mac)
	sh(l, `ip -n %[1]s link set eth0 up; ip -n %[1]s addr add %[2]s/64 dev eth0 nodad`, ns, address)
	l.forwards(port)
	return ns
}

func (l *lab) forwards(port string) {
	l.Helper()
	eventually(l, "the port "+port, func() bool {
		return strings.Contains(sh(l, "bridge link show dev %s", port), "state forwarding") && strings.Contains(sh(l, "ip link show %s", port), "LOWER_UP")
	})
}

// ping tells whether the address answers.
func (l *lab) ping(ns, address string) bool {
	l.Helper()
	return strings.Contains(sh(l, "ip netns exec %s ping -6 -c 1 -W 5 %s || true", ns, address), " 0% packet loss")
}
