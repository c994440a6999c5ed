package ndp

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gangway/service/ndp/message"
	"gangway/service/plan"
	"gangway/service/vnet"
)

// rdnss is a name server's option.
func rdnss(address string) []byte {
	a := netip.MustParseAddr(address).As16()
	return append([]byte{optionRDNSS, 3, 0, 0, 0, 0, 7, 8}, a[:]...)
}

// school is a network with routers that said something.
type school struct {
	*testing.T
	n     *network
	cache cache
	now   time.Time
}

func newSchool(t *testing.T) *school {
	return &school{T: t, n: newNetwork(), cache: cache{}, now: time.Unix(1000, 0)}
}

func (s *school) bodies(k key) []body {
	if r := s.cache[k]; r != nil {
		return r.bodies
	}
	return nil
}

func (s *school) say(address, mac string, lifetime uint16, options ...[]byte) {
	s.cache.hear(parse(s, advertisement(address, mac, lifetime, options...)), s.now)
}

func (s *school) keys(routers ...vnet.Router) []named {
	s.Helper()
	list, err := keysOf(plan.Forget{}, routers)
	must(s, err)
	return list
}

func (s *school) teach(routers ...vnet.Router) (changed bool) {
	s.Helper()
	changed, err := s.n.teach("eth0", s.keys(routers...), s.bodies)
	must(s, err)
	return changed
}

func (s *school) withdraw(routers ...vnet.Router) { s.n.withdraw(s.keys(routers...), s.now, s.bodies) }

// finals are those of all routers, as the guests read them.
func (s *school) finals() []*message.RouterAdvertisement {
	s.Helper()
	var list []*message.RouterAdvertisement
	for _, frame := range s.n.allFinals(s.now, message.AllNodes, message.Multicast(message.AllNodes), all) {
		list = append(list, parse(s, frame))
	}
	return list
}

// ended returns the prefixes that an advertisement ends, and whether the router and a name server.
func ended(ra *message.RouterAdvertisement) (list []netip.Prefix, router, names bool) {
	for _, p := range ra.Prefixes() {
		if p.Valid == 0 {
			list = append(list, p.Prefix)
		}
	}
	for kind, option := range ra.Options() {
		names = names || kind == optionRDNSS && slices.Equal(option[4:8], make([]byte, 4))
	}
	return list, ra.RouterLifetime() == 0, names
}

func (s *school) want(routers []vnet.Router, retired ...string) {
	s.Helper()
	have, _ := s.n.shown("x")
	if diff := cmp.Diff(vnet.Taught{Network: "x", Routers: routers, Retired: prefixes(retired...)}, have, compare...); diff != "" {
		s.Error(diff)
	}
}

// What another router stands for isn't ended with the one that goes.
func TestWhatRoutersShareOutlivesOne(t *testing.T) {
	t.Parallel()
	s := newSchool(t)
	s.say(routerA, macA, 1800, pio(prefixA, 3600), pio(prefixA2, 3600), rdnss("2001:db8::53"))
	s.say(routerB, macB, 1800, pio(prefixA, 3600), rdnss("2001:db8::53"))
	s.teach(known(routerA, macA, true, prefixA, prefixA2), known(routerB, macB, true, prefixA))
	s.withdraw(known(routerA, macA, true, prefixA, prefixA2))
	s.want([]vnet.Router{known(routerB, macB, true, prefixA)}, prefixA2)
	finals := s.finals()
	if len(finals) != 1 {
		t.Fatalf("%d finals", len(finals))
	}
	if list, router, names := ended(finals[0]); !slices.Equal(list, prefixes(prefixA2)) || !router || names || finals[0].From.String() != routerA {
		t.Errorf("ended %v, router %v, names %v", list, router, names)
	}
	// With the last of them goes all.
	s.withdraw(known(routerB, macB, true, prefixA))
	s.want(nil, prefixA, prefixA2)
	for _, ra := range s.finals() {
		if list, router, names := ended(ra); !slices.Contains(list, netip.MustParsePrefix(prefixA)) || !router || !names {
			t.Errorf("%s ended %v, router %v, names %v", ra.From, list, router, names)
		}
	}
	// A prefix that is taught again is none that anybody ends.
	s.teach(known(routerB, macB, false, prefixA))
	s.want([]vnet.Router{known(routerB, macB, false, prefixA)}, prefixA2)
	for _, ra := range s.finals() {
		if list, _, _ := ended(ra); slices.Contains(list, netip.MustParsePrefix(prefixA)) || ra.From.String() == routerB {
			t.Errorf("%s ended %v", ra.From, list)
		}
	}
}

func TestAPrefixGoesAndTheRouterStays(t *testing.T) {
	t.Parallel()
	s := newSchool(t)
	s.say(routerA, macA, 1800, pio(prefixA, 3600), rdnss("2001:db8::53"))
	s.teach(known(routerA, macA, true, prefixA))
	s.now = s.now.Add(100 * time.Second)
	s.say(routerA, macA, 1800, pio(prefixA2, 3600), rdnss("2001:db8::53"))
	if !s.teach(known(routerA, macA, true, prefixA2)) {
		t.Error("nothing changed")
	}
	s.want([]vnet.Router{known(routerA, macA, true, prefixA, prefixA2)})
	s.withdraw(known(routerA, macA, false, prefixA))
	s.now = s.now.Add(10 * time.Second)
	s.want([]vnet.Router{known(routerA, macA, true, prefixA2)}, prefixA)
	finals := s.finals()
	if len(finals) != 1 {
		t.Fatalf("%d finals", len(finals))
	}
	list, router, names := ended(finals[0])
	if !slices.Equal(list, prefixes(prefixA)) || router || names || finals[0].RouterLifetime() != 1790*time.Second {
		t.Errorf("ended %v, router %v, names %v; lifetime %v", list, router, names, finals[0].RouterLifetime())
	}
	// Then the router: all that it ever said ends.
	s.withdraw(known(routerA, macA, true, prefixA2))
	all := map[netip.Prefix]bool{}
	for _, ra := range s.finals() {
		list, router, names := ended(ra)
		if !router || !names {
			t.Errorf("router %v, names %v", router, names)
		}
		for _, p := range list {
			all[p] = true
		}
	}
	if len(all) != 2 {
		t.Errorf("ended %v", all)
	}
}

// Of a router that was never heard, and of more prefixes than fit a packet.
func TestWithdrawsWhatNoAdvertisementNames(t *testing.T) {
	t.Parallel()
	s := newSchool(t)
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("2001:db8:%x::/64", i+1))
	}
	s.withdraw(known(routerA, macA, true, many...), known(routerB, macB, true))
	count := map[string]int{}
	for _, ra := range s.finals() {
		list, router, _ := ended(ra)
		count[ra.From.String()] += len(list)
		if !router || len(ra.Body()) > 1240 {
			t.Errorf("router %v, %d bytes", router, len(ra.Body()))
		}
	}
	if want := map[string]int{routerA: 100, routerB: 0}; !cmp.Equal(want, count) {
		t.Errorf("ended %v", count)
	}
}

func TestTeachingTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	s := newSchool(t)
	s.say(routerA, macA, 1800, pio(prefixA, 3600))
	if !s.teach(known(routerA, macA, true, prefixA)) || s.teach(known(routerA, macA, true, prefixA)) {
		t.Error("it was news never or twice")
	}
	s.now = s.now.Add(time.Second)
	s.say(routerA, macA, 1800, pio(prefixA, 3600))
	if s.teach(known(routerA, macA, true, prefixA)) {
		t.Error("the same said later is news")
	}
	if s.n.lessons[s.keys(known(routerA, macA, true))[0].key].bodies[0].at != s.now {
		t.Error("the later words aren't kept")
	}
	s.withdraw(known(routerA, macA, true, prefixA))
	if !s.teach(known(routerA, macA, true, prefixA)) {
		t.Error("taught again is no news")
	}
	s.want([]vnet.Router{known(routerA, macA, true, prefixA)})
}

// The two hours begin with the last withdrawal of what was taught in between.
func TestTwoHoursBeginAgain(t *testing.T) {
	t.Parallel()
	s := newSchool(t)
	if !s.teach(known(routerA, macA, false, prefixA)) || !s.teach(known(routerA, macA, true, prefixA)) {
		t.Error("a default router is no news")
	}
	for range 2 {
		s.teach(known(routerA, macA, true, prefixA))
		s.withdraw(known(routerA, macA, true, prefixA))
		s.now = s.now.Add(90 * time.Minute)
	}
	s.n.expire(s.now)
	s.want(nil, prefixA)
	finals := s.finals()
	if len(finals) != 1 {
		t.Fatalf("%d finals", len(finals))
	}
	if list, router, _ := ended(finals[0]); len(list) != 1 || !router || !s.n.lessons[key{finals[0].From, finals[0].MAC}].left.Equal(s.now.Add(-90*time.Minute)) {
		t.Errorf("ended %v, router %v", list, router)
	}
}

func TestTwoHoursLater(t *testing.T) {
	t.Parallel()
	s := newSchool(t)
	s.teach(known(routerA, macA, true, prefixA, prefixA2), known(routerB, macB, true))
	s.withdraw(known(routerA, macA, false, prefixA))
	begin := s.now
	s.now = s.now.Add(time.Hour)
	s.withdraw(known(routerA, macA, true, prefixA2, prefixA), known(routerB, macB, true)) // prefixA for the second time
	s.want(nil, prefixA, prefixA2)
	if next := s.n.next(); !next.Equal(begin.Add(retirement)) {
		t.Errorf("next at %v", next.Sub(begin))
	}
	if s.n.expire(begin.Add(retirement - 1)) {
		t.Error("too early")
	}
	if !s.n.expire(begin.Add(retirement)) {
		t.Error("too late")
	}
	s.want(nil, prefixA2)
	if !s.n.expire(s.now.Add(retirement)) || len(s.n.lessons) != 0 || !s.n.next().IsZero() {
		t.Error("something is left")
	}
}

func TestALinkCannotFillTheMemory(t *testing.T) {
	t.Parallel()
	s := newSchool(t)
	for i := range maxLessons + 10 {
		s.now = s.now.Add(time.Second)
		mac := message.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}.String()
		var many []string
		for j := range maxTaught + 10 {
			many = append(many, fmt.Sprintf("2001:db8:%x:%x::/64", i, j))
		}
		s.teach(known(routerA, mac, true))
		s.withdraw(known(routerA, mac, true, many...))
	}
	if len(s.n.lessons) != maxLessons {
		t.Errorf("%d routers", len(s.n.lessons))
	}
	for _, l := range s.n.lessons {
		if len(l.retired) != maxTaught {
			t.Errorf("%d prefixes", len(l.retired))
		}
	}
	if _, err := s.n.teach("eth0", s.keys(known(routerB, macB, true)), s.bodies); err != nil || len(s.n.lessons) != maxLessons {
		t.Errorf("no room for another: %v", err)
	}
}
