package ndp

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gangway/service/ndp/message"
	"gangway/service/vnet"
)

func parse(t testing.TB, frame []byte) *message.RouterAdvertisement {
	t.Helper()
	f, err := message.ParseFrame(frame)
	must(t, err)
	ra, err := message.ParseRouterAdvertisement(f)
	must(t, err)
	return ra
}

// timeline is a cache with a clock.
type timeline struct {
	*testing.T
	cache cache
	now   time.Time
}

func newTimeline(t *testing.T) *timeline {
	return &timeline{T: t, cache: cache{}, now: time.Unix(1000, 0)}
}

// pass lets time go by, step by step as the room does.
func (l *timeline) pass(d time.Duration) (changed bool) {
	end := l.now.Add(d)
	for {
		next := l.cache.next()
		if next.IsZero() || next.After(end) {
			l.now = end
			return l.cache.expire(end) || changed
		}
		l.now = next
		changed = l.cache.expire(next) || changed
		if again := l.cache.next(); again.Equal(next) {
			l.Fatalf("at %v, nothing comes of what is due", next)
		}
	}
}

func (l *timeline) hear(lifetime uint16, options ...[]byte) (changed bool) {
	return l.cache.hear(parse(l, advertisement(routerA, macA, lifetime, options...)), l.now)
}

func (l *timeline) want(changed, wantChanged bool, want ...vnet.Router) {
	l.Helper()
	if diff := cmp.Diff(want, l.cache.shown(), compare...); diff != "" {
		l.Error(diff)
	}
	if changed != wantChanged {
		l.Errorf("changed is %v", changed)
	}
}

func TestLifetimesEnd(t *testing.T) {
	t.Parallel()
	l := newTimeline(t)
	l.want(l.hear(1800, pio(prefixA, 3600), pio(prefixA2, 600)), true, known(routerA, macA, true, prefixA, prefixA2))
	l.want(l.pass(599*time.Second), false, known(routerA, macA, true, prefixA, prefixA2))
	l.want(l.pass(time.Second), true, known(routerA, macA, true, prefixA))
	l.want(l.pass(1199*time.Second), false, known(routerA, macA, true, prefixA))
	l.want(l.pass(time.Second), true, known(routerA, macA, false, prefixA))
	l.want(l.pass(1800*time.Second), true)
	if !l.cache.next().IsZero() {
		t.Error("an empty cache waits for something")
	}
}

func TestARouterSaysThatItEnds(t *testing.T) {
	t.Parallel()
	l := newTimeline(t)
	l.hear(1800, pio(prefixA, 3600))
	l.want(l.hear(0, pio(prefixA, 3600)), true, known(routerA, macA, false, prefixA))
	l.want(l.hear(0, pio(prefixA, 3600)), false, known(routerA, macA, false, prefixA))
	l.want(l.hear(0, pio(prefixA, 0)), true)
	l.want(l.hear(0, pio(prefixA, 0)), false)
}

func TestAPrefixIsGoneAfterTwoAdvertisementsWithoutIt(t *testing.T) {
	t.Parallel()
	for name, other := range map[string][]byte{"another prefix": pio(prefixB, 3600), "none": nil} {
		t.Run(name, func(t *testing.T) {
			l := newTimeline(t)
			both := []string{prefixA}
			rest := []string{}
			if other != nil {
				both, rest = append(both, prefixB), []string{prefixB}
			}
			l.hear(1800, pio(prefixA, 3600))
			l.pass(3 * time.Second)
			l.hear(1800, other)
			l.want(l.pass(3*time.Second), false, known(routerA, macA, true, both...))
			if !l.cache.doubtful() {
				t.Error("no doubt")
			}
			// One that has it in between, and it begins anew.
			l.hear(1800, pio(prefixA, 3600), other)
			l.pass(3 * time.Second)
			if l.cache.doubtful() {
				t.Error("doubts what was said")
			}
			l.hear(1800, other)
			l.want(l.pass(3*time.Second), false, known(routerA, macA, true, both...))
			l.want(l.hear(1800, other), false, known(routerA, macA, true, both...))
			l.want(l.pass(3*time.Second), true, known(routerA, macA, true, rest...))
		})
	}
}

// RFC 4861 6.2.3: what is too long for the link comes in parts.
func TestPartsOfAnAdvertisementDoNotFlap(t *testing.T) {
	t.Parallel()
	l := newTimeline(t)
	parts := [][]byte{pio(prefixA, 3600), pio(prefixA2, 3600), pio(prefixB, 3600)}
	all := known(routerA, macA, true, prefixA, prefixA2, prefixB)
	for round := range 10 {
		for i := range parts {
			changed := l.hear(1800, parts[(i+round)%3])
			if round > 0 {
				l.want(changed, false, all)
			}
			l.pass(10 * time.Millisecond)
		}
		l.want(l.pass(10*time.Second), false, all)
		if l.cache.doubtful() {
			t.Fatal("doubts what was said")
		}
	}
	if bodies := l.cache[onlyKey(l.cache)].current(); len(bodies) != 3 {
		t.Errorf("%d parts are current", len(bodies))
	}
	// A part less: it is gone after the second time.
	for range 2 {
		l.hear(1800, parts[0])
		l.hear(1800, parts[2])
		l.pass(10 * time.Second)
	}
	l.want(false, false, known(routerA, macA, true, prefixA, prefixB))
	if bodies := l.cache[onlyKey(l.cache)].current(); len(bodies) != 2 {
		t.Errorf("%d parts are current", len(bodies))
	}
}

func onlyKey(c cache) key {
	for k := range c {
		return k
	}
	return key{}
}

func TestSameAddressOfAnotherMACIsAnotherRouter(t *testing.T) {
	t.Parallel()
	c := cache{}
	now := time.Unix(1000, 0)
	c.hear(parse(t, advertisement(routerA, macA, 1800, pio(prefixA, 3600))), now)
	c.hear(parse(t, advertisement(routerA, macB, 0, pio(prefixB, 3600))), now)
	want := []vnet.Router{known(routerA, macA, true, prefixA), known(routerA, macB, false, prefixB)}
	if diff := cmp.Diff(want, c.shown(), compare...); diff != "" {
		t.Error(diff)
	}
}

func TestALinkCannotFillTheCache(t *testing.T) {
	t.Parallel()
	c := cache{}
	now := time.Unix(1000, 0)
	for i := range 100 {
		var options [][]byte
		for j := range 200 {
			options = append(options, pio(fmt.Sprintf("2001:db8:%x:%x::/64", i, j), 3600))
		}
		ra := parse(t, advertisement(fmt.Sprintf("fe80::%x", i+1), macA, 1800, options...))
		c.hear(ra, now)
		if c.hear(ra, now) {
			t.Fatal("the same again is news")
		}
	}
	shown := c.shown()
	if len(shown) != maxRouters {
		t.Errorf("%d routers", len(shown))
	}
	for _, r := range shown {
		if len(r.Prefixes) != maxPrefixes {
			t.Errorf("%d prefixes", len(r.Prefixes))
		}
	}
	if shown[0].Address != netip.MustParseAddr("fe80::1") {
		t.Error("who came first is gone")
	}
}

func TestAPrefixThatIsNotForUse(t *testing.T) {
	t.Parallel()
	l := newTimeline(t)
	not := pio(prefixA, 3600)
	not[3] = 0
	l.want(l.hear(1800, not), true, known(routerA, macA, true))
}

// What a router says is the same as long as only lifetimes go by.
func TestLifetimesAreNoNews(t *testing.T) {
	t.Parallel()
	option := func(kind byte, at, length int, value byte) []byte {
		o := make([]byte, length)
		o[0], o[1] = kind, byte(length/8)
		for i := 16; i < length; i++ {
			o[i] = 7 // beyond all lifetimes
		}
		o[at] = value
		return o
	}
	for name, test := range map[string]struct {
		kind   byte
		at     int
		length int
		same   bool
	}{
		"valid lifetime": {optionPrefix, 7, 32, true}, "preferred lifetime": {optionPrefix, 11, 32, true}, "prefix": {optionPrefix, 20, 32, false},
		"prefix length": {optionPrefix, 2, 32, false}, "route's lifetime": {optionRoute, 7, 24, true}, "route": {optionRoute, 9, 24, false},
		"name server's lifetime": {optionRDNSS, 7, 24, true}, "name server": {optionRDNSS, 9, 24, false},
		"search list's lifetime": {optionDNSSL, 4, 24, true}, "search list": {optionDNSSL, 12, 24, false},
		"NAT64 prefix's lifetime": {optionPREF64, 2, 16, true}, "NAT64 prefix's length": {optionPREF64, 3, 16, false},
		"resolver's lifetime": {optionEncryptedDNS, 6, 24, true}, "resolver": {optionEncryptedDNS, 12, 24, false},
		"MTU": {5, 6, 8, false}, "unknown": {200, 4, 8, false},
	} {
		a := newBody(parse(t, advertisement(routerA, macA, 1800, option(test.kind, test.at, test.length, 1))), time.Time{})
		b := newBody(parse(t, advertisement(routerA, macA, 900, option(test.kind, test.at, test.length, 2))), time.Time{})
		if same := cmp.Equal(a.said, b.said); same != test.same {
			t.Errorf("%s: same is %v", name, same)
		}
	}
}

// Parts that come with pauses in between are as current as each other, as long as their prefixes are.
func TestPartsWithPausesAreAllCurrent(t *testing.T) {
	t.Parallel()
	l := newTimeline(t)
	l.hear(1800, pio(prefixA, 3600))
	l.pass(time.Second)
	l.hear(1800, pio(prefixB, 3600), rdnss("2001:db8::53"))
	l.pass(time.Second)
	if bodies := l.cache[onlyKey(l.cache)].current(); len(bodies) != 2 {
		t.Errorf("%d parts are current", len(bodies))
	}
	l.hear(1800, pio(prefixB, 3600))
	l.pass(time.Second) // prefixA is gone, and the name server is no longer spoken of
	if bodies := l.cache[onlyKey(l.cache)].current(); len(bodies) != 1 || len(bodies[0].said) != 1 {
		t.Errorf("%d parts are current", len(bodies))
	}
}
