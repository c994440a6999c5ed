package ndp

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gangway/service/ndp/message"
	"gangway/service/plan"
	"gangway/service/vnet"
)

// proxied puts a guest with an address by SLAAC behind a proxy.
func proxied(t *testing.T, edit ...func(*Options)) (s *serving, up, guest, lan string) {
	t.Helper()
	s, up = onProxy(t, edit...)
	s.radvd(s.router, s.radvdA())
	s.advertised(up, known(routerA, macA, true, s.prefix))
	lan = s.station(up, lanMAC, s.lan)
	var port string
	guest, port = s.guest(guestMAC)
	s.forwards(port)
	s.begin(s.spec, s.prefix)
	s.announceIt(s.spec)
	s.awaitAddress(guest, s.prefix, bridgeLLA)
	s.awaitKnown(s.guestOn + "=" + guestMAC)
	s.pass() // it may have been learned between the two looks of the last
	return s, up, guest, lan
}

// claims adds the address in the namespace and waits for the end of duplicate address detection: does it have it?
func (l *lab) claims(ns, address string) bool {
	l.Helper()
	sh(l, "ip -n %s addr add %s/128 dev eth0", ns, address)
	var flags string
	eventually(l, "the end of duplicate address detection", func() bool {
		flags = sh(l, "ip -n %s -6 -o addr show dev eth0 to %s", ns, address)
		return strings.Contains(flags, "dadfailed") || flags == "" || !strings.Contains(flags, "tentative")
	})
	if strings.Contains(flags, "dadfailed") {
		sh(l, "ip -n %s addr del %s/128 dev eth0", ns, address)
		return false
	}
	return flags != ""
}

func solicits(target string, duplicate bool) func(captured) bool {
	return func(f captured) bool {
		s, err := message.ParseNeighborSolicitation(f.Frame)
		return err == nil && s.Target == netip.MustParseAddr(target) && s.Duplicate() == duplicate
	}
}

func TestNobodyHasAnAddressTwice(t *testing.T) {
	t.Parallel()
	s, up, guest, lan := proxied(t)
	atLAN, atGuest := s.watch(lan, "eth0"), s.watch(guest, "eth0")

	if s.claims(guest, s.lan) {
		t.Error("a guest has a neighbour's address")
	}
	if s.claims(guest, s.host) {
		t.Error("a guest has the host's address")
	}
	if s.claims(lan, s.guestOn) {
		t.Error("a neighbour has a guest's address")
	}
	if n := atLAN.count(solicits(s.host, true)); n > 0 {
		t.Errorf("the link was asked for the host's own address %d times", n)
	}
	// Asked as it was, by us.
	asked, passed := atGuest.all(solicits(s.lan, true)), atLAN.all(solicits(s.lan, true))
	if len(asked) == 0 || len(passed) != len(asked) {
		t.Fatalf("asked %d times, passed on %d times", len(asked), len(passed))
	}
	a, _ := message.ParseNeighborSolicitation(asked[0].Frame)
	b, _ := message.ParseNeighborSolicitation(passed[0].Frame)
	if b.MAC.String() != macOf(t, up) || !bytes.Equal(a.Nonce, b.Nonce) || len(b.Nonce) == 0 || b.To != a.To {
		t.Errorf("asked %+v, passed on %+v", a, b)
	}
	for _, f := range atGuest.all(ofType(message.TypeNeighborAdvertisement)) {
		if na, err := message.ParseNeighborAdvertisement(f.Frame); err == nil && !f.sent && (na.MAC.String() != s.spec.MAC || na.LinkLayer.String() != s.spec.MAC) {
			t.Errorf("a guest heard %+v", na)
		}
	}
	// No question of a guest's comes back to it.
	if n := atGuest.count(func(f captured) bool { return !f.sent && solicits(s.lan, true)(f) }); n > 0 {
		t.Errorf("the guest heard its own question %d times", n)
	}
	// And what is free is had, and known. Nothing is installed of what isn't.
	before := s.pokes.Load()
	if !s.claims(guest, s.on("77")) {
		t.Error("a free address isn't had")
	}
	eventually(t, "a poke", func() bool { return s.pokes.Load() > before })
	s.awaitKnown(s.on("77") + "=" + guestMAC + " " + s.guestOn + "=" + guestMAC)
	if !s.ping(lan, s.on("77")) {
		t.Error("the new address doesn't answer")
	}
}

// A second network that shares the uplink.
func (s *serving) another(up string) (spec plan.ServeSpec, guest string) {
	s.Helper()
	name, bridge := "other"+s.id, "c"+s.id
	sh(s, `ip link add %[1]s type bridge mcast_snooping 0 forward_delay 0; ip link set %[1]s alias %[2]s%[3]s; ip link set %[1]s up`, bridge, plan.AliasPrefix, name)
	s.Cleanup(func() { sh(s, "ip link del %s", bridge) })
	spec = s.bridgeAsRouter(name, bridge, up)
	guest, port := s.namespace(bridge, "02:00:00:00:00:02")
	sh(s, "ip -n %s link set eth0 up", guest)
	s.forwards(port)
	s.begin(spec, s.prefix)
	s.announceIt(spec)
	s.awaitAddress(guest, s.prefix, bridgeLLA)
	return spec, guest
}

func TestTwoNetworksOnOneUplink(t *testing.T) {
	t.Parallel()
	s, up, guest, _ := proxied(t)
	spec, other := s.another(up)
	otherOnA := s.on("ff:fe00:2")
	eventually(t, "both guests to be known", func() bool {
		have := s.pass(s.spec, spec).Neighbours
		return len(have[s.network]) == 1 && len(have[spec.Network]) == 1 && have[spec.Network][0].Address.String() == otherOnA
	})
	if s.claims(guest, otherOnA) {
		t.Error("a guest has the address of one of another network")
	}
	if s.claims(other, s.guestOn) {
		t.Error("a guest of another network has the address of one")
	}
	if !s.claims(other, s.on("78")) {
		t.Error("a free address isn't had")
	}
	// Both at the same time, in whatever order: nobody has it, or one.
	wanted := s.on("79")
	group := message.SolicitedNode(netip.MustParseAddr(wanted))
	atGuest, atOther := s.watch(guest, "eth0"), s.watch(other, "eth0")
	for i, ns := range []string{guest, other} {
		ask := message.NeighborSolicitation{From: netip.IPv6Unspecified(), To: group, Target: netip.MustParseAddr(wanted),
			MAC: message.MAC{2, 0, 0, 0, 0, byte(1 + i)}, Nonce: []byte{1, 2, 3, 4, 5, byte(i)}}
		s.send(ns, "eth0", ask.Frame(message.Multicast(group)).Marshal())
	}
	heard := func(f captured) bool { return !f.sent && solicits(wanted, true)(f) }
	eventually(t, "both to hear", func() bool { return atGuest.count(heard) > 0 && atOther.count(heard) > 0 })
	for i, c := range []*capture{atGuest, atOther} { // with their own nonce, they would ignore it (RFC 7527 4.2)
		for _, f := range c.all(heard) {
			if q, _ := message.ParseNeighborSolicitation(f.Frame); len(q.Nonce) > 0 && q.Nonce[5] == byte(i) {
				t.Errorf("%d heard his own question", i)
			}
		}
	}
	s.room.mu.Lock()
	for name, n := range s.room.networks {
		if c := n.claims[netip.MustParseAddr(wanted)]; c != nil {
			t.Errorf("%s is about to have it: %+v", name, c)
		}
	}
	s.room.mu.Unlock()
}

func TestAQuestionOnBothSidesAtOnce(t *testing.T) {
	t.Parallel()
	s, _, guest, lan := proxied(t)
	wanted := s.on("79")
	target := netip.MustParseAddr(wanted)
	group := message.SolicitedNode(target)
	atLAN, atGuest := s.watch(lan, "eth0"), s.watch(guest, "eth0")
	ask := func(ns string, mac message.MAC, nonce byte) {
		q := message.NeighborSolicitation{From: netip.IPv6Unspecified(), To: group, Target: target, MAC: mac, Nonce: []byte{1, 2, 3, 4, 5, nonce}}
		s.send(ns, "eth0", q.Frame(message.Multicast(group)).Marshal())
	}
	ask(guest, message.MAC{2, 0, 0, 0, 0, 1}, 1)
	eventually(t, "the link to be asked", func() bool { return atLAN.count(solicits(wanted, true)) == 1 })
	// An access point would send it back: it is nobody else's question.
	s.send(lan, "eth0", atLAN.all(solicits(wanted, true))[0].raw)
	ask(lan, message.MAC{2, 0, 0, 0, 0x0a, 1}, 2)
	eventually(t, "the guest to hear of it", func() bool {
		return atGuest.count(func(f captured) bool { return !f.sent && solicits(wanted, true)(f) }) > 0
	})
	heard := atGuest.all(func(f captured) bool { return !f.sent && solicits(wanted, true)(f) })
	if q, _ := message.ParseNeighborSolicitation(heard[0].Frame); len(heard) != 1 || q.Nonce[5] != 2 || q.MAC.String() != s.spec.MAC {
		t.Errorf("%d, heard %+v", len(heard), q)
	}
	// Neither has it.
	eventually(t, "a later address to be known", func() bool {
		s.claimsOnce(guest, s.on("80"))
		return strings.Contains(s.knows(s.network), s.on("80")+"=")
	})
	if got := s.knows(s.network); strings.Contains(got, wanted) {
		t.Errorf("known: %s", got)
	}
}

// claimsOnce adds the address, if it isn't there.
func (l *lab) claimsOnce(ns, address string) {
	sh(l, "ip -n %s addr replace %s/128 dev eth0", ns, address)
}

// Whom nobody knows is asked for: a silent guest answers when it is wanted.
func TestASilentGuestIsFound(t *testing.T) {
	t.Parallel()
	s, up, guest, lan := proxied(t)
	// As if a day had gone by.
	sh(t, "ip neigh del proxy %[1]s dev %[2]s; ip route del %[1]s/128 dev %[3]s", s.guestOn, up, s.bridge)
	s.room.mu.Lock()
	s.room.networks[s.network].neighbours = newNeighbours()
	s.room.networks[s.network].neighbours.probed = true
	s.room.mu.Unlock()
	if got := s.observe().Neighbours[s.network]; len(got) > 0 {
		t.Fatalf("known: %v", got)
	}
	atLAN, atGuest := s.watch(lan, "eth0"), s.watch(guest, "eth0")
	before := s.pokes.Load()
	lanAddress, mac := netip.MustParseAddr(s.lan), message.MAC{2, 0, 0, 0, 0x0a, 1}
	ask := func(target string) {
		s.send(lan, "eth0", message.Solicit(lanAddress, mac, netip.MustParseAddr(target), message.MAC{}).Marshal())
	}
	answers := func(f captured) bool {
		a, err := message.ParseNeighborAdvertisement(f.Frame)
		return err == nil && !f.sent && a.Target.String() == s.guestOn
	}
	ask(s.guestOn)
	eventually(t, "a poke", func() bool { return s.pokes.Load() > before })
	if f := atGuest.all(solicits(s.guestOn, false)); len(f) != 1 || f[0].Source.String() != s.spec.MAC || f[0].From.String() != bridgeLLA {
		t.Errorf("the guest was asked %+v", f)
	}
	s.observe()
	s.send("", up, message.UnsolicitedAdvertisement(netip.MustParseAddr(s.on("5555")), message.MAC{2, 0, 0, 0, 0x55, 1}).Marshal())
	eventually(t, "something sent later", func() bool {
		return atLAN.count(func(f captured) bool { return f.Source == message.MAC{2, 0, 0, 0, 0x55, 1} }) > 0
	})
	if n := atLAN.count(answers); n > 0 {
		t.Errorf("%d answers before the kernel knows where to send", n)
	}
	s.awaitKnown(s.guestOn + "=" + guestMAC)
	eventually(t, "an answer", func() bool { return atLAN.count(answers) > 0 })
	a, err := message.ParseNeighborAdvertisement(atLAN.all(answers)[0].Frame)
	if err != nil || !a.Solicited || a.Override || a.Router || a.LinkLayer.String() != macOf(t, up) || a.MAC != a.LinkLayer || a.To != lanAddress {
		t.Errorf("%+v, %v", a, err)
	}
	if !s.ping(lan, s.guestOn) {
		t.Error("the guest doesn't answer")
	}
	// For each address once a second, for what isn't the link's not at all.
	for range 20 {
		ask(s.on("dead"))
		ask("2001:db8:b::dead")
		ask(s.host)
	}
	eventually(t, "the last question", func() bool { return atLAN.count(solicits(s.host, false)) >= 20 })
	ask(s.on("beef"))
	eventually(t, "the guest to be asked", func() bool { return atGuest.count(solicits(s.on("beef"), false)) == 1 })
	if n := atGuest.count(solicits(s.on("dead"), false)); n < 1 || n > 3 {
		t.Errorf("asked %d times", n)
	}
	if n := atGuest.count(solicits("2001:db8:b::dead", false)) + atGuest.count(solicits(s.host, false)); n > 0 {
		t.Errorf("asked %d times for what no guest has", n)
	}
	// A neighbour who wants the address himself has his answer at once.
	s.room.mu.Lock()
	s.room.networks[s.network].neighbours = newNeighbours()
	s.room.networks[s.network].neighbours.probed = true
	s.room.answered = nil
	s.room.mu.Unlock()
	sh(t, "ip neigh del proxy %s dev %s", s.guestOn, up)
	if s.claims(lan, s.guestOn) {
		t.Error("a neighbour has a guest's address")
	}
}

// Guests are asked whether they are still there.
func TestGuestsThatAreGoneAreForgotten(t *testing.T) {
	t.Parallel()
	const period = 700 * time.Millisecond
	s, _, guest, _ := proxied(t, func(o *Options) { o.probing = period })
	_, port := s.guest("02:00:00:00:00:02")
	s.forwards(port)
	s.observe()
	elsewhere := s.watch("", port)
	atGuest := s.watch(guest, "eth0")
	asked := func(f captured) bool { return !f.sent && solicits(s.guestOn, false)(f) && f.From.String() == bridgeLLA }
	eventually(t, "five probes", func() bool { return atGuest.count(asked) >= 5 })
	if got := s.knows(s.network); !strings.Contains(got, s.guestOn+"="+guestMAC) {
		t.Errorf("known: %s", got)
	}
	if n := elsewhere.count(solicits(s.guestOn, false)); n > 0 {
		t.Errorf("somebody else was asked %d times", n)
	}
	for _, f := range atGuest.all(asked) {
		if f.Destination.String() != guestMAC || f.To.String() != s.guestOn {
			t.Errorf("asked by %s to %s", f.To, f.Destination)
		}
	}
	before := s.pokes.Load()
	sh(t, "ip netns exec %s sh -c 'echo 0 >/proc/sys/net/ipv6/conf/eth0/autoconf'; ip -n %s -6 addr flush dev eth0 scope global", guest, guest)
	eventually(t, "a poke", func() bool { return s.pokes.Load() > before })
	eventually(t, "the guest to be forgotten", func() bool { return !strings.Contains(s.knows(s.network), guestMAC) })
}

// A new process finds guests by the routes to them.
func TestGuestsAreKnownAgain(t *testing.T) {
	t.Parallel()
	s, up, guest, lan := proxied(t)
	s.room.Close()
	sh(t, "ip route add %s/128 dev %s proto %d", s.on("99"), up, plan.Protocol)
	atGuest := s.watch(guest, "eth0")
	s.room = s.newRoom()
	k := dump6(t)
	have, err := s.room.Observe(t.Context(), &k, s.uplinks)
	must(t, err)
	if got := have.Neighbours[s.network]; len(got) != 1 || got[0] != (vnet.Neighbour{Address: netip.MustParseAddr(s.guestOn)}) {
		t.Errorf("known at first: %v", got)
	}
	s.begin(s.spec, s.prefix)
	if got := s.observe().Neighbours[s.network]; len(got) != 1 || got[0].Address.String() != s.guestOn {
		t.Errorf("known when served: %v", got)
	}
	s.awaitKnown(s.guestOn + "=" + guestMAC)
	if atGuest.count(solicits(s.guestOn, false)) == 0 {
		t.Error("nobody was asked")
	}
	if !s.ping(lan, s.guestOn) {
		t.Error("the guest doesn't answer")
	}
	// And its port's end is its own.
	sh(t, "ip link set p%s-3 nomaster", s.id)
	s.awaitKnown("")
}

// The same link by another interface: neighbours must learn the new MAC address.
func TestTheLinkIsToldWhereServedGuestsAre(t *testing.T) {
	t.Parallel()
	s, up, _, lan := proxied(t)
	atLAN := s.watch(lan, "eth0")
	s.announceIt(s.spec)
	told := func(f captured) bool {
		a, err := message.ParseNeighborAdvertisement(f.Frame)
		return err == nil && a.Target.String() == s.guestOn && !a.Solicited && a.Override && a.LinkLayer.String() == macOf(t, up)
	}
	eventually(t, "the link to be told", func() bool { return atLAN.count(told) == 1 })
}

// Nothing is learned that isn't a guest's.
func TestWhatGuestsCannotHave(t *testing.T) {
	t.Parallel()
	s, _, guest, _ := proxied(t)
	mac := message.MAC{2, 0, 0, 0, 0, 1}
	for _, a := range []string{s.host, "2001:db8:b::5", "2001:db8:a:2::5", "fe80::5", "fd00::5"} {
		s.send(guest, "eth0", message.UnsolicitedAdvertisement(netip.MustParseAddr(a), mac).Marshal())
		s.send(guest, "eth0", message.Solicit(netip.MustParseAddr(a), mac, netip.MustParseAddr(bridgeLLA), message.MAC{}).Marshal())
	}
	// Another guest's, who is there; and that of one who isn't.
	rogue, port := s.guest("02:00:00:00:00:66")
	s.forwards(port)
	s.observe()
	s.send(rogue, "eth0", message.UnsolicitedAdvertisement(netip.MustParseAddr(s.guestOn), message.MAC{2, 0, 0, 0, 0, 0x66}).Marshal())
	s.send(guest, "eth0", message.UnsolicitedAdvertisement(netip.MustParseAddr(s.on("88")), message.MAC{2, 0, 0, 0, 0, 0x88}).Marshal())
	s.send(rogue, "eth0", message.UnsolicitedAdvertisement(netip.MustParseAddr(s.on("88")), message.MAC{2, 0, 0, 0, 0, 0x66}).Marshal())
	rogueOnA := s.on("ff:fe00:66")
	s.awaitKnown(s.on("88") + "=02:00:00:00:00:66 " + s.guestOn + "=" + guestMAC + " " + rogueOnA + "=02:00:00:00:00:66")
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	if list := s.room.networks[s.network].neighbours.list; len(list) != 3 || list[netip.MustParseAddr(s.guestOn)].rival != nil {
		t.Errorf("%+v", list)
	}
}

// A guest that asks for thousands of addresses floods neither the link nor the kernel.
func TestAFloodOfClaims(t *testing.T) {
	t.Parallel()
	s, _, guest, lan := proxied(t)
	atLAN := s.watch(lan, "eth0")
	mac := message.MAC{2, 0, 0, 0, 0, 1}
	const many = 3000
	fd, index := packetSocket(t, guest, "eth0")
	for i := range many {
		target := netip.MustParseAddr(s.on(fmt.Sprintf("%x", 0x1000+i)))
		q := message.NeighborSolicitation{From: netip.IPv6Unspecified(), To: message.SolicitedNode(target), Target: target, MAC: mac}
		must(t, unix.Sendto(fd, q.Frame(message.Multicast(q.To)).Marshal(), 0, &unix.SockaddrLinklayer{Ifindex: index}))
	}
	unix.Close(fd)
	eventually(t, "as many as it may have", func() bool { return len(s.observe().Neighbours[s.network]) == maxAddresses })
	passed := atLAN.count(func(f captured) bool {
		q, err := message.ParseNeighborSolicitation(f.Frame)
		return err == nil && q.Duplicate() && !f.sent
	})
	if passed < maxAddresses-1 || passed > maxClaims-50 {
		t.Errorf("%d questions were passed on", passed)
	}
	if !s.claims(lan, s.on("300")) {
		t.Error("the link is dead")
	}
}
