package link

import (
	"net/netip"
	"testing"

	"gangway/service/plan"

	"github.com/vishvananda/netlink"
)

// What is relied on of the kernel where guests are neighbours of others on an uplink that isn't theirs.

// The kernel answers for proxied neighbours at once where proxy_delay is 0, and if the link both forwards and has
// proxy_ndp; force_forwarding is not enough.
func TestProxyAnswers(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	uplink6(t, "gwta", "2001:db8:a::2/64")
	own, guest := netip.MustParseAddr("2001:db8:a::2"), netip.MustParseAddr("2001:db8:a::5")
	uplink := "net/ipv6/conf/gwta/"
	apply(t, k, plan.AddProxy{Link: "gwta", Address: guest}, plan.BorrowSysctl{Key: "net/ipv6/neigh/gwta/proxy_delay", Value: "0"})
	for _, c := range []struct {
		forwarding, force, proxy string
		answers                  bool
	}{{"0", "0", "0", false}, {"0", "1", "1", false}, {"1", "0", "0", false}, {"1", "0", "1", true}, {"1", "1", "1", true}} {
		set(t, uplink+"forwarding", c.forwarding)
		set(t, uplink+"force_forwarding", c.force)
		set(t, uplink+"proxy_ndp", c.proxy)
		w := newWire(t, "gwtap")
		w.solicit(guest)
		if answered := w.settle(own, guest); answered != c.answers {
			t.Errorf("with forwarding %s, force_forwarding %s, proxy_ndp %s: answered is %v", c.forwarding, c.force, c.proxy, answered)
		}
	}
}

// A neighbour that asks again, by unicast, is answered only where "all" has proxy_ndp, whatever the link has: its
// question is routed to the guest otherwise, with a hop limit that makes it void (RFC 4861 7.1.1).
func TestProxyAnswersProbes(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	uplink6(t, "gwta", "2001:db8:a::2/64")
	l, err := netlink.LinkByName("gwta")
	must(t, err)
	mac := l.Attrs().HardwareAddr
	own, guest := netip.MustParseAddr("2001:db8:a::2"), netip.MustParseAddr("2001:db8:a::5")
	uplink := "net/ipv6/conf/gwta/"
	apply(t, k, plan.AddProxy{Link: "gwta", Address: guest}, plan.BorrowSysctl{Key: "net/ipv6/neigh/gwta/proxy_delay", Value: "0"})
	set(t, uplink+"forwarding", "1")
	for _, c := range []struct {
		force, link, all string
		answers          bool
	}{{"0", "1", "0", false}, {"1", "1", "0", false}, {"0", "1", "1", false}, {"1", "0", "1", true}, {"1", "1", "1", true}} {
		set(t, uplink+"force_forwarding", c.force)
		set(t, uplink+"proxy_ndp", c.link)
		set(t, "net/ipv6/conf/all/proxy_ndp", c.all)
		w := newWire(t, "gwtap")
		w.probe(mac, guest)
		if answered := w.settle(own, guest); answered != c.answers {
			t.Errorf("with force_forwarding %s, proxy_ndp %s and everybody's %s: answered is %v", c.force, c.link, c.all, answered)
		}
	}
}

// A packet is routed if the interface that it came in by has force_forwarding: forwarding isn't needed, nor anything
// on the way out.
func TestForceForwarding(t *testing.T) {
	if !isolated(t) {
		return
	}
	uplink6(t, "gwta", "2001:db8:a::2/64")
	uplink6(t, "gwtb", "2001:db8:b::2/64")
	out, err := netlink.LinkByName("gwtb")
	must(t, err)
	in, err := netlink.LinkByName("gwta")
	must(t, err)
	ip(t, "neighbour", "add", "2001:db8:b::9", "lladdr", "02:00:00:00:00:09", "dev", "gwtb")
	from, to := netip.MustParseAddr("2001:db8:a::9"), netip.MustParseAddr("2001:db8:b::9")
	const wanted, marker = 1, 2
	// passes sends a ping, then, with everybody's forwarding on, a second one.
	passes := func() bool {
		w, sink := newWire(t, "gwtap"), newWire(t, "gwtbp")
		echo := func(id byte) {
			w.send(w.icmp(in.Attrs().HardwareAddr, from, to, 64, []byte{128, 0, 0, 0, 0, id, 0, 1}))
		}
		echo(wanted)
		w.settle(netip.MustParseAddr("2001:db8:a::2"), to)
		set(t, "net/ipv6/conf/all/force_forwarding", "1")
		echo(marker)
		passed := false
		sink.hear("the second ping", func(h heard) bool {
			if h.source == from && h.destination == to && h.body[0] == 128 {
				passed = passed || h.body[5] == wanted
				return h.body[5] == marker
			}
			return false
		})
		set(t, "net/ipv6/conf/all/force_forwarding", "0")
		return passed
	}
	for _, c := range []struct {
		in, out, key string
		passes       bool
	}{
		{"0", "0", "force_forwarding", false}, {"1", "0", "force_forwarding", true}, {"0", "1", "force_forwarding", false},
		{"1", "1", "forwarding", false},
	} {
		for _, name := range []string{in.Attrs().Name, out.Attrs().Name} {
			set(t, "net/ipv6/conf/"+name+"/force_forwarding", "0")
			set(t, "net/ipv6/conf/"+name+"/forwarding", "0")
		}
		set(t, "net/ipv6/conf/gwta/"+c.key, c.in)
		set(t, "net/ipv6/conf/gwtb/"+c.key, c.out)
		if got := passes(); got != c.passes {
			t.Errorf("%s is %s where it comes in, %s where it goes out: passes is %v", c.key, c.in, c.out, got)
		}
	}
}

// An interface that begins to forward costs every interface its default routes that the kernel learned from routers'
// advertisements, but where accept_ra is 2; force_forwarding costs nothing.
func TestForwardingForgetsRouters(t *testing.T) {
	if !isolated(t) {
		return
	}
	own := map[string]string{"gwta": "2001:db8:a::2", "gwtb": "2001:db8:b::2", "gwtc": "2001:db8:c::2"}
	for name, address := range own {
		uplink6(t, name, address+"/64")
	}
	set(t, "net/ipv6/conf/gwtb/accept_ra", "2")
	learn := func(name string) {
		t.Helper()
		w := newWire(t, name+"p")
		eventually(t, "a default route by "+name, func() bool {
			w.advertise()
			return defaultRoutes(t, name) > 0
		})
		w.settle(netip.MustParseAddr(own[name]), netip.Addr{}) // none is to be learned later
	}
	for _, c := range []struct {
		key  string
		lost bool
	}{
		{"gwtc/force_forwarding", false}, {"gwta/force_forwarding", false}, {"gwta/proxy_ndp", false},
		{"gwtc/forwarding", true}, {"gwta/forwarding", true},
	} {
		for _, name := range []string{"gwta", "gwtb", "gwtc"} {
			set(t, "net/ipv6/conf/"+name+"/forwarding", "0")
		}
		learn("gwta")
		learn("gwtb")
		set(t, "net/ipv6/conf/"+c.key, "1")
		if lost := defaultRoutes(t, "gwta") == 0; lost != c.lost {
			t.Errorf("%s: default route of accept_ra 1 lost is %v", c.key, lost)
		}
		if defaultRoutes(t, "gwtb") == 0 {
			t.Errorf("%s: default route of accept_ra 2 is lost", c.key)
		}
	}
}
