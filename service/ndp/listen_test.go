package ndp

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gangway/service/ndp/message"
	"gangway/service/vnet"
)

const (
	routerA, macA = "fe80::a", "02:00:00:00:aa:01"
	routerB, macB = "fe80::b", "02:00:00:00:bb:01"
	guestMAC      = "02:00:00:00:00:01"

	prefixA  = "2001:db8:a::/64"
	prefixA2 = "2001:db8:a:2::/64"
	prefixB  = "2001:db8:b::/64"

	radvdA  = `prefix ` + prefixA + ` { }; RDNSS 2001:db8:a::53 { }; DNSSL a.example { }; route 2001:db8:aa::/48 { }; AdvLinkMTU 1400`
	radvdA2 = `prefix ` + prefixA2 + ` { }; RDNSS 2001:db8:a::53 { }; DNSSL a.example { }; route 2001:db8:aa::/48 { }; AdvLinkMTU 1400`
	radvdB  = `prefix ` + prefixB + ` { }`
)

func known(address, mac string, isDefault bool, prefixes ...string) vnet.Router {
	r := vnet.Router{Address: netip.MustParseAddr(address), MAC: mac, Default: isDefault}
	for _, p := range prefixes {
		r.Prefixes = append(r.Prefixes, netip.MustParsePrefix(p))
	}
	return r
}

// What is autonomous, and preferred, has tests of its own.
var compare = []cmp.Option{cmpopts.IgnoreFields(vnet.Router{}, "Autonomous", "Preference"), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}

// advertised waits until the room shows exactly these routers on the uplink.
func (l *lab) advertised(uplink string, want ...vnet.Router) {
	l.Helper()
	var have []vnet.Router
	defer func() {
		if l.Failed() {
			l.Log(cmp.Diff(want, have, compare...))
		}
	}()
	eventually(l, "the routers of "+uplink, func() bool {
		have = l.observe().Advertised[uplink].Routers
		return cmp.Equal(want, have, compare...)
	})
}

func TestHearsRealRouters(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	up := l.uplink("a")
	// The host's own IPv6 has no part in it.
	sh(t, "echo 1 >/proc/sys/net/ipv6/conf/%s/disable_ipv6", up)
	if a, ok := l.observe().Advertised[up]; !ok || a.Settled || a.Interface != up || len(a.Routers) != 0 {
		t.Errorf("before anything was heard: %+v, %v", a, ok)
	}
	before := l.pokes.Load()
	l.radvd(l.routerOf(up, routerA, macA), radvdA)
	eventually(t, "a poke", func() bool { return l.pokes.Load() > before })
	a := known(routerA, macA, true, prefixA)
	l.advertised(up, a)
	if !l.observe().Advertised[up].Settled {
		t.Error("a router was heard, but it hasn't settled")
	}

	// dnsmasq, as a router of another make.
	ns := l.routerOf(up, routerB, macB)
	sh(t, "ip -n %s addr add 2001:db8:b::1/64 dev eth0 nodad", ns)
	l.start(ns, "dnsmasq", "--keep-in-foreground", "--port=0", "--enable-ra", "--dhcp-range=2001:db8:b::,ra-only,64", "--conf-file=/dev/null",
		"--interface=eth0", "--pid-file="+l.dir+"/dnsmasq.pid", "--user=root")
	l.advertised(up, a, known(routerB, macB, true, prefixB))
}

func TestListensToThoseUplinksThatItIsTold(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	up := l.uplink("a")
	ns := l.routerOf(up, routerA, macA)
	port := "p" + l.id + "-1"
	l.uplinks = append(l.uplinks, vnet.Uplink{Interface: port, Bridge: up}, vnet.Uplink{Interface: "lo"}, vnet.Uplink{Interface: "absent"})
	l.radvd(ns, radvdA)
	l.advertised(up, known(routerA, macA, true, prefixA))
	have := l.observe().Advertised
	if len(have) != 1 {
		t.Errorf("listened to %v", have)
	}
	l.uplinks = nil
	if have := l.observe().Advertised; len(have) != 0 {
		t.Errorf("listened to %v", have)
	}
	// Nothing is left of what was heard.
	l.uplinks = []vnet.Uplink{{Interface: up}}
	if have := l.observe().Advertised[up]; len(have.Routers) > 0 || have.Settled {
		t.Errorf("listened to anew: %v", have)
	}
}

func TestAnInterfaceThatIsMadeAnewIsListenedToAnew(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	up := l.uplink("a")
	_, stop := l.radvd(l.routerOf(up, routerA, macA), radvdA)
	l.advertised(up, known(routerA, macA, true, prefixA))
	stop()
	sh(t, "ip link del %[1]s; ip link add %[1]s type bridge mcast_snooping 0 forward_delay 0; ip link set %[1]s up", up)
	if have := l.observe().Advertised[up]; len(have.Routers) > 0 {
		t.Errorf("the routers of another interface: %v", have)
	}
	l.radvd(l.routerOf(up, routerB, macB), radvdB)
	l.advertised(up, known(routerB, macB, true, prefixB))
}

func TestARouterThatEndsIsNoDefaultRouter(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	up := l.uplink("a")
	_, stop := l.radvd(l.routerOf(up, routerA, macA), radvdA)
	l.advertised(up, known(routerA, macA, true, prefixA))
	stop() // it says so: router lifetime 0
	l.advertised(up, known(routerA, macA, false, prefixA))
}

// RFC 4861 6.3.7: three solicitations, four seconds apart, and what isn't heard in five seconds isn't there.
func TestAsksForRoutersAndSettles(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	up := l.uplink("a")
	ns := l.routerOf(up, routerA, macA)
	c := l.watch(ns, "eth0")
	eventually(t, "the uplink's own address", func() bool { return l.room.linkLocalOf(dump(t), up) != netip.IPv6Unspecified() })
	began := time.Now()
	l.observe()
	eventually(t, "a poke", func() bool { return l.pokes.Load() > 0 })
	if took := time.Since(began); took < settling-time.Second {
		t.Errorf("settled after %v", took)
	}
	if have := l.observe().Advertised[up]; !have.Settled || len(have.Routers) > 0 {
		t.Errorf("nobody spoke: %+v", have)
	}
	eventually(t, "three solicitations", func() bool { return c.count(ofType(message.TypeRouterSolicitation)) >= 3 })
	asked := c.all(ofType(message.TypeRouterSolicitation))
	if first := asked[0].at.Sub(began); first > 2*time.Second {
		t.Errorf("asked after %v", first)
	}
	if gap := asked[2].at.Sub(asked[1].at); gap < 3*time.Second {
		t.Errorf("asked again after %v", gap)
	}
	for _, f := range asked {
		if s, err := message.ParseRouterSolicitation(f.Frame); err != nil || !s.From.IsLinkLocalUnicast() || s.MAC.String() != macOf(t, up) {
			t.Errorf("asked as %+v, %v", s, err)
		}
	}
	l.radvd(ns, radvdA)
	l.advertised(up, known(routerA, macA, true, prefixA))
	if have := l.observe().Advertised[up]; !have.Settled {
		t.Error("not settled any more")
	}
}

func (r *Room) linkLocalOf(k vnet.Kernel, name string) netip.Addr {
	link, _ := k.LinkByName(name)
	return (&Room{kernel: k}).linkLocal(link.Index)
}

func macOf(t testing.TB, name string) string {
	t.Helper()
	return sh(t, "cat /sys/class/net/%[1]s/address 2>/dev/null || ip -o link show %[1]s | sed 's/.*ether \\([^ ]*\\).*/\\1/'", name)
}

func TestAsksWithoutAnAddressOfItsOwn(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	up := l.uplink("a")
	sh(t, "echo 1 >/proc/sys/net/ipv6/conf/%s/disable_ipv6", up)
	c := l.watch(l.routerOf(up, routerA, macA), "eth0")
	l.observe()
	eventually(t, "a solicitation", func() bool { return c.count(ofType(message.TypeRouterSolicitation)) > 0 })
	f := c.all(ofType(message.TypeRouterSolicitation))[0]
	if s, err := message.ParseRouterSolicitation(f.Frame); err != nil || !s.From.IsUnspecified() || len(f.ICMP) != 8 {
		t.Errorf("asked as %+v with %d bytes, %v", s, len(f.ICMP), err)
	}
}

// advertisement is one of a router that is no daemon.
func advertisement(address, mac string, lifetime uint16, options ...[]byte) []byte {
	m, _ := message.ParseMAC(mac)
	body := []byte{message.TypeRouterAdvertisement, 0, 0, 0, 64, 0, byte(lifetime >> 8), byte(lifetime), 0, 0, 0, 0, 0, 0, 0, 0}
	for _, o := range options {
		body = append(body, o...)
	}
	return message.AdvertisementFrame(netip.MustParseAddr(address), m, message.AllNodes, message.Multicast(message.AllNodes), body).Marshal()
}

// pio is a prefix information option with both lifetimes in seconds (up to 65535).
func pio(prefix string, lifetime uint16) []byte {
	p := netip.MustParsePrefix(prefix)
	a := p.Addr().As16()
	hi, lo := byte(lifetime>>8), byte(lifetime)
	return append([]byte{optionPrefix, 4, byte(p.Bits()), 0xc0, 0, 0, hi, lo, 0, 0, hi, lo, 0, 0, 0, 0}, a[:]...)
}

func TestWhatIsNotTheUplinksIsNotHeard(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	up := l.uplink("a")
	ns := l.routerOf(up, routerA, macA)
	l.observe()
	good := advertisement(routerB, macB, 1800, pio(prefixB, 3600))
	tagged := append([]byte{}, advertisement("fe80::1", "02:00:00:00:cc:01", 1800)...)
	tagged = append(tagged[:12:12], append([]byte{0x81, 0, 0, 10}, tagged[12:]...)...)
	priority := advertisement("fe80::2", "02:00:00:00:cc:02", 1800)
	priority = append(priority[:12:12], append([]byte{0x81, 0, 0xe0, 0}, priority[12:]...)...)
	elsewhere := advertisement("fe80::3", "02:00:00:00:cc:03", 1800)
	copy(elsewhere, []byte{2, 0, 0, 0, 0xdd, 1}) // to another station, as a hub would
	distant := advertisement("fe80::4", "02:00:00:00:cc:04", 1800)
	distant[14+7] = 254
	l.send(ns, "eth0", tagged)
	l.send(ns, "eth0", elsewhere)
	l.send(ns, "eth0", distant)
	l.send("", up, advertisement("fe80::5", "02:00:00:00:cc:05", 1800)) // by the host itself
	l.send(ns, "eth0", priority)
	l.send(ns, "eth0", good)
	l.advertised(up, known("fe80::2", "02:00:00:00:cc:02", true), known(routerB, macB, true, prefixB))
}

// An interface that isn't a bridge, and that hears everything.
func TestListensAsAHostDoes(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	ns := "ns" + l.id + "-x"
	up := "v" + l.id
	sh(t, `ip netns add %[1]s; ip link add %[2]s type veth peer name eth0 netns %[1]s; ip -n %[1]s link set eth0 up
echo 1 >/proc/sys/net/ipv6/conf/%[2]s/disable_ipv6; ip link set %[2]s promisc on up`, ns, up)
	t.Cleanup(func() { sh(t, "ip link del %s; ip netns del %s", up, ns) })
	const group = "33:33:00:00:00:01 users 2" // the kernel is a member already
	l.uplinks = []vnet.Uplink{{Interface: up}}
	l.observe()
	if groups := sh(t, "ip maddr show dev %s", up); !strings.Contains(groups, group) {
		t.Errorf("not a member of the group of all nodes: %s", groups)
	}
	elsewhere := advertisement("fe80::3", "02:00:00:00:cc:03", 1800)
	copy(elsewhere, []byte{2, 0, 0, 0, 0xdd, 1})         // to another station
	eventually(t, "something to be heard", func() bool { // the link comes up when it does
		l.send(ns, "eth0", elsewhere)
		l.send(ns, "eth0", advertisement(routerB, macB, 1800, pio(prefixB, 3600)))
		return len(l.observe().Advertised[up].Routers) > 0
	})
	l.advertised(up, known(routerB, macB, true, prefixB))
	l.uplinks = nil
	l.observe()
	eventually(t, "the membership to end", func() bool { return !strings.Contains(sh(t, "ip maddr show dev %s", up), group) })
}

// RFC 4861 allows extension headers before ICMPv6, and the kernel goes by such advertisements, too.
func TestHearsBehindExtensionHeaders(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	up := l.uplink("a")
	ns := l.routerOf(up, routerA, macA)
	l.observe()
	frame := advertisement(routerB, macB, 1800, pio(prefixB, 3600))
	packet := append([]byte{}, frame[:54]...)
	packet = append(packet, 58, 0, 1, 4, 0, 0, 0, 0) // destination options: padding
	packet = append(packet, frame[54:]...)
	packet[20] = 60
	packet[19] += 8
	l.send(ns, "eth0", packet)
	l.advertised(up, known(routerB, macB, true, prefixB))
}

func TestAFloodIsNoNews(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	up := l.uplink("a")
	ns := l.routerOf(up, routerA, macA)
	l.observe()
	frame := advertisement(routerA, macA, 1800, pio(prefixA, 3600))
	l.send(ns, "eth0", frame)
	l.advertised(up, known(routerA, macA, true, prefixA))
	l.teach(up)
	before, saved := l.pokes.Load(), l.saved()
	l.flood(ns, "eth0", frame, 20000)
	eventually(t, "another router to be heard", func() bool { // it may take its time, as others' do
		l.send(ns, "eth0", advertisement(routerB, macB, 1800, pio(prefixB, 3600)))
		return len(l.observe().Advertised[up].Routers) == 2
	})
	l.advertised(up, known(routerA, macA, true, prefixA), known(routerB, macB, true, prefixB))
	if n := l.pokes.Load() - before; n > 1 {
		t.Errorf("%d pokes for one more router", n)
	}
	if now := l.saved(); now != saved {
		t.Errorf("the disk was written: %s, then %s", saved, now)
	}
}
