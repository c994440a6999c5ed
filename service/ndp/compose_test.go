package ndp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"gangway/service/ndp/message"
	"gangway/service/plan"
	"gangway/service/vnet"
)

const (
	selfAddress, selfMAC = "fe80::1", "02:00:00:00:50:01"
	routerC, macC        = "fe80::c", "02:00:00:00:cc:01"
)

// mirror is a network whose bridge serves it, on an uplink whose routers say something.
type mirror struct {
	*testing.T
	room *Room
	n    *network
	u    *uplink
	now  time.Time
}

func newMirror(t *testing.T, edit ...func(*plan.ServeSpec)) *mirror {
	t.Helper()
	m := &mirror{T: t, now: time.Unix(10000, 0), n: newNetwork(), u: &uplink{name: "up", cache: cache{}}}
	m.room = &Room{now: func() time.Time { return m.now }, networks: map[string]*network{"net": m.n}, uplinks: map[string]*uplink{"up": m.u}}
	spec := plan.ServeSpec{Network: "net", Bridge: "gway0", Address: netip.MustParseAddr(selfAddress), MAC: selfMAC,
		Uplink: "up", Proxy: true, Default: true, MTU: 1500}
	for _, e := range edit {
		e(&spec)
	}
	mac, err := message.ParseMAC(selfMAC)
	must(t, err)
	m.n.served = &served{spec: spec, key: key{spec.Address, mac}, spoken: spoken{}, waiting: map[int]*message.Solicitation{}}
	m.room.share()
	return m
}

func (m *mirror) say(address, mac string, lifetime uint16, options ...[]byte) {
	m.u.hear(parse(m, advertisement(address, mac, lifetime, options...)), m.now)
}

func (m *mirror) named(prefixes ...string) []named {
	m.Helper()
	list, err := keysOf(plan.Forget{}, []vnet.Router{known(selfAddress, selfMAC, true, prefixes...)})
	must(m, err)
	return list
}

// teach records that guests are about to hear of the prefixes, from the bridge.
func (m *mirror) teach(prefixes ...string) {
	m.Helper()
	_, err := m.n.teach("up", m.named(prefixes...), func(key) []body { return nil })
	must(m, err)
}

func (m *mirror) withdraw(prefixes ...string) {
	routers := m.named(prefixes...)
	routers[0].router.Default = false
	m.n.withdraw(routers, m.now, func(key) []body { return nil })
}

func (m *mirror) pass(d time.Duration) {
	m.now = m.now.Add(d)
	m.u.pass(m.now)
	m.n.expire(m.now)
}

// says is what the bridge says, as text: the header, then the options.
func (m *mirror) says() string {
	m.Helper()
	frames := m.room.advertisements(m.n, m.now, message.AllNodes, message.Multicast(message.AllNodes))
	var all []string
	for _, frame := range frames {
		ra := parse(m, frame)
		if ra.From.String() != selfAddress || ra.MAC.String() != selfMAC || ra.Managed() || ra.Other() || ra.Preference() != message.Medium {
			m.Errorf("said by %s %s, managed %v, other %v, preference %d", ra.From, ra.MAC, ra.Managed(), ra.Other(), ra.Preference())
		}
		words := []string{fmt.Sprintf("%d/%d/%d", ra.RouterLifetime()/time.Second, ra.CurHopLimit(), ra.RetransTimer().Milliseconds())}
		for kind, o := range ra.Options() {
			switch kind {
			case optionPrefix:
				valid, preferred := binary.BigEndian.Uint32(o[4:]), binary.BigEndian.Uint32(o[8:])
				words = append(words, fmt.Sprintf("%s/%02x:%d/%d", netip.AddrFrom16([16]byte(o[16:])), o[3], valid, preferred))
			case optionRDNSS:
				text := fmt.Sprintf("dns:%d", binary.BigEndian.Uint32(o[4:]))
				for s := range slices.Chunk(o[8:], 16) {
					text += "=" + netip.AddrFrom16([16]byte(s)).String()
				}
				words = append(words, text)
			case 1:
				words = append(words, "lla="+message.MAC(o[2:]).String())
			case 5:
				words = append(words, fmt.Sprintf("mtu=%d", binary.BigEndian.Uint32(o[4:])))
			case optionRoute, optionDNSSL, optionEncryptedDNS:
				words = append(words, fmt.Sprintf("%d:%d", kind, binary.BigEndian.Uint32(o[4:])))
			case optionPREF64:
				words = append(words, fmt.Sprintf("%d:%d", kind, binary.BigEndian.Uint16(o[2:])&^7))
			default:
				words = append(words, fmt.Sprintf("%d=%x", kind, o[2:]))
			}
		}
		all = append(all, strings.Join(words, " "))
	}
	return strings.Join(all, " + ")
}

func (m *mirror) want(want string) {
	m.Helper()
	if got := m.says(); got != want {
		m.Errorf("says\n%s\nwant\n%s", got, want)
	}
}

func servers(lifetime uint16, addresses ...string) []byte {
	o := []byte{optionRDNSS, byte(1 + 2*len(addresses)), 0, 0, 0, 0, byte(lifetime >> 8), byte(lifetime)}
	for _, text := range addresses {
		a := netip.MustParseAddr(text).As16()
		o = append(o, a[:]...)
	}
	return o
}

func mtu(n uint16) []byte { return []byte{5, 1, 0, 0, 0, 0, byte(n >> 8), byte(n)} }

const itself = " lla=" + selfMAC + " mtu=1500"

func TestAProxyRepeatsWhatTheRoutersSay(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	m.teach(prefixA, prefixB)
	unknown := []byte{200, 1, 1, 2, 3, 4, 5, 6}
	m.say(routerA, macA, 1800, []byte{1, 1, 2, 0, 0, 0, 0xaa, 1}, pio(prefixA, 3600), mtu(1400), servers(600, "2001:db8:a::53"), unknown, []byte{7, 1, 0, 0, 0, 0, 3, 0xe8})
	m.pass(100 * time.Second)
	m.say(routerB, macB, 600, pio(prefixB, 7200), pio(prefixA, 300), mtu(1300), servers(600, "2001:db8:a::53"), servers(900, "fe80::53", "2001:db8:b::53"), unknown)
	// The longest lifetimes, each option once, the smallest MTU, no link-local server.
	m.want("1700/64/1000 2001:db8:a::/40:3500/3500 2001:db8:b::/40:7200/7200 lla=" + selfMAC + " mtu=1300" +
		" dns:600=2001:db8:a::53 200=010203040506 dns:900=2001:db8:b::53")
	m.pass(100 * time.Second)
	m.want("1600/64/1000 2001:db8:a::/40:3400/3400 2001:db8:b::/40:7100/7100 lla=" + selfMAC + " mtu=1300" +
		" dns:500=2001:db8:a::53 200=010203040506 dns:800=2001:db8:b::53")
	m.n.served.spec.MTU = 1280
	m.n.served.spec.Default = false
	if got := m.says(); !strings.HasPrefix(got, "0/64/1000 ") || !strings.Contains(got, " mtu=1280 ") {
		t.Error(got)
	}
}

func TestOnlyWhatIsOnRecordIsAdvertised(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	m.say(routerA, macA, 1800, pio(prefixA, 3600), pio(prefixA2, 3600), pio("2001:db8:aa::/56", 3600))
	m.want("")
	m.teach(prefixA, "2001:db8:aa::/56")
	m.want("1800/64/1000 2001:db8:a::/40:3600/3600" + itself)
	m.n.lessons[m.n.served.key].asDefault = false
	m.want("0/64/1000 2001:db8:a::/40:3600/3600" + itself)
	// A prefix for the link alone is none for guests; it may be there twice.
	twice := pio(prefixA2, 600)
	twice[3] = 0x80
	m.teach(prefixA2)
	m.say(routerB, macB, 1800, twice)
	m.want("1800/64/1000 2001:db8:a::/40:3600/3600 2001:db8:a:2::/40:3600/3600" + itself)
	m.say(routerA, macA, 0, pio(prefixA, 0), pio(prefixA2, 0))
	m.want("1800/64/1000" + itself)
	again := pio(prefixA2, 700)
	again[3] = 0x40
	m.say(routerB, macB, 1800, again, twice)
	m.want("1800/64/1000 2001:db8:a:2::/40:700/700" + itself)
}

// One advertisement has the old and the new, for two hours.
func TestOneAdvertisementHasOldAndNew(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	m.teach(prefixA)
	route := []byte{optionRoute, 1, 0, 0, 0, 0, 3, 0xe8}
	m.say(routerA, macA, 1800, pio(prefixA, 3600), servers(600, "2001:db8:a::53", "2001:db8::53"), route)
	m.want("1800/64/1000 2001:db8:a::/40:3600/3600" + itself + " dns:600=2001:db8:a::53=2001:db8::53 24:1000")
	// Another uplink, with one of the servers.
	clear(m.u.cache)
	m.pass(time.Second)
	m.teach(prefixB)
	m.say(routerB, macB, 900, pio(prefixB, 3600), servers(600, "2001:db8::53"))
	m.withdraw(prefixA)
	const old = "900/64/1000 2001:db8:b::/40:3600/3600 2001:db8:a::/40:0/0" + itself + " 24:0 dns:0=2001:db8:a::53 dns:600=2001:db8::53"
	m.want(old)
	if c := m.room.compose(m.n, m.now); !strings.Contains(c.offers, "no "+prefixA) {
		t.Errorf("offers %q", c.offers)
	}
	// A new process has it from the disk.
	was := m.n.served.spoken
	m.n.served.spoken = spoken{}
	m.n.served.spoken.recall(m.n.lessons[m.n.served.key].bodies)
	m.want(old)
	m.n.served.spoken = was
	// Back, within the two hours.
	m.pass(time.Minute)
	clear(m.u.cache)
	m.teach(prefixA)
	m.say(routerA, macA, 1800, pio(prefixA, 3600), servers(600, "2001:db8:a::53", "2001:db8::53"), route)
	m.withdraw(prefixB)
	m.want("1800/64/1000 2001:db8:a::/40:3600/3600 2001:db8:b::/40:0/0" + itself + " dns:600=2001:db8:a::53=2001:db8::53 24:1000")
	m.pass(retirement)
	m.say(routerA, macA, 1800, pio(prefixA, 3600))
	m.want("1800/64/1000 2001:db8:a::/40:3600/3600" + itself + " 24:0 dns:0=2001:db8:a::53=2001:db8::53")
	m.pass(retirement)
	m.say(routerA, macA, 1800, pio(prefixA, 3600))
	m.want("1800/64/1000 2001:db8:a::/40:3600/3600" + itself)
}

// What ends by itself, or by its router's word, is told as ended.
func TestWhatARouterEndsIsOver(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	m.teach(prefixA)
	m.say(routerA, macA, 1800, pio(prefixA, 3600), servers(600, "2001:db8:a::53"))
	m.says()
	m.say(routerA, macA, 1800, pio(prefixA, 3600), servers(0, "2001:db8:a::53"))
	m.want("1800/64/1000 2001:db8:a::/40:3600/3600" + itself + " dns:0=2001:db8:a::53")
	m.say(routerA, macA, 1800, pio(prefixA, 3600), servers(600, "2001:db8:a::53"))
	m.pass(600 * time.Second)
	m.want("1200/64/1000 2001:db8:a::/40:3000/3000" + itself + " dns:0=2001:db8:a::53")
}

// A router that says it in turns is one that says all of it.
func TestARouterThatSpeaksInTurns(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	m.teach(prefixA)
	unknown := []byte{200, 1, 1, 2, 3, 4, 5, 6}
	for range 3 {
		m.say(routerA, macA, 1800, pio(prefixA, 3600))
		m.pass(10 * time.Second)
		m.say(routerA, macA, 1800, servers(600, "2001:db8:a::53"), unknown)
		m.pass(10 * time.Second)
	}
	if got := m.says(); !strings.HasPrefix(got, "1790/64/1000 2001:db8:a::/40:3580/3580") || !strings.HasSuffix(got, " dns:590=2001:db8:a::53 200=010203040506") {
		t.Error(got)
	}
}

// Nothing was heard yet: what guests were told lasts as long as it was to.
func TestAnUplinkThatIsListenedToAgain(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	m.teach(prefixA, prefixA2)
	m.want("") // there is nothing that is known to be true
	m.say(routerA, macA, 1800, pio(prefixA, 3600), pio(prefixA2, 3600), servers(600, "2001:db8:a::53"))
	m.says()
	clear(m.u.cache)
	m.u.settled = false
	m.now = m.now.Add(10 * time.Second)
	m.withdraw(prefixA2)
	m.want("1790/64/1000 2001:db8:a::/40:3590/3590 2001:db8:a:2::/40:0/0" + itself + " dns:590=2001:db8:a::53")
	delete(m.room.uplinks, "up")
	m.want("1790/64/1000 2001:db8:a::/40:3590/3590 2001:db8:a:2::/40:0/0" + itself + " dns:590=2001:db8:a::53")
	m.now = m.now.Add(1790 * time.Second)
	m.want("")
	m.room.uplinks["up"] = m.u
	m.u.settled = true // and by now it is known that nobody is there
	m.want("0/0/1000 2001:db8:a:2::/40:0/0" + itself + " dns:0=2001:db8:a::53")
}

func TestABridgeWithAPrefixOfItsOwn(t *testing.T) {
	t.Parallel()
	m := newMirror(t, func(s *plan.ServeSpec) { s.Proxy, s.Prefixes, s.OnLink = false, prefixes(prefixA), true })
	m.teach(prefixA, prefixB)
	m.withdraw(prefixB)
	m.say(routerA, macA, 1800, pio(prefixA2, 3600), servers(600, "2001:db8:a::53"))
	m.want("1800/0/1000 2001:db8:a::/c0:7200/1800 2001:db8:b::/c0:0/0" + itself)
	m.n.served.spec.OnLink = false
	m.n.served.spec.Default = false
	m.want("0/0/1000 2001:db8:a::/40:7200/1800 2001:db8:b::/40:0/0" + itself)
}

// All that guests may have heard of the bridge ends when it does, without anything but the disk.
func TestAWithdrawnBridgeIsForgotten(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	m.teach(prefixA)
	m.say(routerA, macA, 1800, pio(prefixA, 3600), servers(600, "2001:db8:a::53"))
	m.says()
	m.n.withdraw(m.named(prefixA), m.now, func(key) []body { return nil })
	m.want("")
	for range 2 { // served or not
		frames := m.room.allFinals(m.n, m.now, message.AllNodes, message.Multicast(message.AllNodes), all)
		if len(frames) != 1 {
			t.Fatalf("%d frames", len(frames))
		}
		ra := parse(t, frames[0])
		if gone, router, names := ended(ra); ra.From.String() != selfAddress || ra.RouterLifetime() != 0 || !slices.Equal(gone, prefixes(prefixA)) || !router || !names {
			t.Errorf("%v ended, names %v", gone, names)
		}
		m.n.served = nil
	}
}

func TestLongAdvertisementsAreSplit(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	var all []string
	var options [][]byte
	for i := range 50 {
		all = append(all, fmt.Sprintf("2001:db8:a:%x::/64", i))
		options = append(options, pio(all[i], 3600))
	}
	m.teach(all...)
	m.say(routerA, macA, 1800, append(options, servers(600, "2001:db8:a::53"))...)
	if got := m.says(); strings.Count(got, " + ") != 1 || strings.Count(got, "1800/64/1000") != 2 || strings.Count(got, "/40:3600/3600") != 50 || !strings.HasSuffix(got, "dns:600=2001:db8:a::53") {
		t.Error(got)
	}
	m.n.withdraw(m.named(all...), m.now, func(key) []body { return nil })
	m.n.served = nil
	gone := 0
	for _, frame := range m.n.allFinals(m.now, message.AllNodes, message.Multicast(message.AllNodes), func(*lesson) bool { return true }) {
		for _, p := range parse(t, frame).Prefixes() {
			if p.Valid == 0 {
				gone++
			}
		}
	}
	if gone != 50 {
		t.Errorf("%d prefixes are forgotten", gone)
	}
}

// RFC 4861 6.2.1: a router's word is renewed before it is over.
func TestRoutersAreAskedInHalfTheirTime(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	m.say(routerA, macA, 1800, pio(prefixA, 3600))
	if want := m.now.Add(900 * time.Second); !m.u.renew.Equal(want) {
		t.Errorf("asked at %v, not %v", m.u.renew, want)
	}
	m.pass(900 * time.Second)
	m.u.renewFrom(m.now)
	if want := m.now.Add(450 * time.Second); !m.u.renew.Equal(want) {
		t.Errorf("asked at %v, not %v", m.u.renew, want)
	}
	m.say(routerC, macC, 0, pio(prefixA, 3600))
	m.pass(885 * time.Second)
	if m.u.renewFrom(m.now); !m.u.renew.IsZero() {
		t.Errorf("asked at %v", m.u.renew)
	}
}

func TestAutonomousPrefixesAndPreferences(t *testing.T) {
	t.Parallel()
	l := newTimeline(t)
	link := pio(prefixB, 3600)
	link[3] = 0x80
	preferred := func(flag byte) *message.RouterAdvertisement {
		ra := parse(t, advertisement(routerA, macA, 1800, pio(prefixA2, 3600), pio(prefixA, 600), pio("2001:db8:aa::/56", 3600), link))
		b := ra.Body()
		b[5] = flag
		ra, err := message.ParseBody(b, ra.From, ra.MAC)
		must(t, err)
		return ra
	}
	for flag, want := range map[byte]int{0x08: 1, 0: 0, 0x18: -1} {
		if !l.cache.hear(preferred(flag), l.now) {
			t.Errorf("a preference of %d is no news", want)
		}
		r := l.cache.shown()[0]
		if r.Preference != want || !slices.Equal(r.Autonomous, prefixes(prefixA, prefixA2)) || len(r.Prefixes) != 4 {
			t.Errorf("%+v, want preference %d", r, want)
		}
	}
	if l.cache.hear(preferred(0x18), l.now); l.cache.hear(preferred(0x18), l.now) {
		t.Error("news of nothing")
	}
	for _, test := range []struct {
		address string
		want    bool
	}{{"2001:db8:a::5", true}, {"2001:db8:a:2::5", true}, {"2001:db8:b::5", false}, {"2001:db8:aa::5", false}, {"fe80::5", false}} {
		if l.cache.shared(netip.MustParseAddr(test.address)) != test.want {
			t.Errorf("%s is shared: %v", test.address, !test.want)
		}
	}
	l.pass(600 * time.Second)
	if got := l.cache.shown()[0].Autonomous; !slices.Equal(got, prefixes(prefixA2)) {
		t.Errorf("%v", got)
	}
	l.pass(1200 * time.Second)
	if got := l.cache.shown()[0]; got.Default || got.Preference != 0 {
		t.Errorf("%+v", got)
	}
}
