package ndp

import (
	"net/netip"
	"testing"
	"time"

	"gangway/service/vnet"
)

// link is an uplink with a clock.
type linkTimeline struct {
	*testing.T
	u     *uplink
	start time.Time
	now   time.Time
	asked []time.Duration // since the start
}

func newLinkTimeline(t *testing.T) *linkTimeline {
	start := time.Unix(1000, 0)
	return &linkTimeline{T: t, u: &uplink{name: "eth0", cache: cache{}}, start: start, now: start}
}

// pass lets time go by as the room does.
func (l *linkTimeline) pass(d time.Duration) (changed bool) {
	end := l.now.Add(d)
	for {
		changed = l.u.pass(l.now) || changed
		if l.u.due(l.now) {
			l.asked = append(l.asked, l.now.Sub(l.start))
		}
		next := l.u.next()
		if next.IsZero() || next.After(end) {
			l.now = end
			return changed
		}
		if next.Equal(l.now) {
			l.Fatal("nothing comes of what is due")
		}
		l.now = next
	}
}

func (l *linkTimeline) carrier(on bool) {
	l.u.link(vnet.Link{MAC: "02:00:00:00:00:01", Up: true, Carrier: on}, netip.IPv6Unspecified(), l.now)
}

func (l *linkTimeline) hear(lifetime uint16, options ...[]byte) bool {
	return l.u.hear(parse(l, advertisement(routerA, macA, lifetime, options...)), l.now)
}

func (l *linkTimeline) want(routers int, settled bool, asked int) {
	l.Helper()
	if len(l.u.cache) != routers || l.u.settled != settled || len(l.asked) != asked {
		l.Errorf("after %v: %d routers, settled %v, asked %v", l.now.Sub(l.start), len(l.u.cache), l.u.settled, l.asked)
	}
}

func TestACarrierThatIsLostForAMomentLeadsToTheSameLink(t *testing.T) {
	t.Parallel()
	l := newLinkTimeline(t)
	l.carrier(true)
	l.pass(0)
	l.want(0, false, 1)
	l.hear(1800, pio(prefixA, 3600))
	l.pass(10 * time.Second)
	l.want(1, true, 1)
	l.carrier(false)
	if l.pass(forgiving - time.Millisecond) {
		t.Error("something changed")
	}
	l.carrier(true)
	l.pass(0)
	l.want(1, true, 2) // it asks, since one can't know
	l.hear(1800, pio(prefixA, 3600))
	l.pass(20 * time.Second)
	l.want(1, true, 2)
}

func TestACarrierThatIsLostForLongerLeadsElsewhere(t *testing.T) {
	t.Parallel()
	l := newLinkTimeline(t)
	l.carrier(true)
	l.hear(1800, pio(prefixA, 3600))
	l.pass(time.Second)
	l.carrier(false)
	if !l.pass(forgiving) {
		t.Error("nothing changed")
	}
	l.want(0, false, 0)
	l.pass(time.Hour)
	l.want(0, false, 0) // nobody is asked
	l.carrier(true)
	l.pass(settling - time.Millisecond)
	l.want(0, false, 2)
	if !l.pass(time.Millisecond) {
		t.Error("nothing changed")
	}
	l.want(0, true, 2)
	l.pass(time.Hour)
	l.want(0, true, 3)
}

// The machine slept, and nobody looked meanwhile.
func TestALossOfCarrierThatWasSleptThrough(t *testing.T) {
	t.Parallel()
	l := newLinkTimeline(t)
	l.carrier(true)
	l.hear(0, pio(prefixA, 0xffff))
	l.pass(time.Second)
	l.carrier(false)
	l.now = l.now.Add(time.Hour)
	l.carrier(true)
	l.want(0, false, 0)
	l.pass(0)
	l.want(0, false, 1)
}

func TestAsksAtOnceWhetherAPrefixIsGone(t *testing.T) {
	t.Parallel()
	l := newLinkTimeline(t)
	l.carrier(true)
	l.pass(0)
	l.hear(1800, pio(prefixA, 3600))
	l.pass(100 * time.Millisecond)
	l.pass(time.Second)
	l.hear(1800, pio(prefixB, 3600))
	l.pass(burst)
	l.want(1, true, 2)
	l.hear(1800, pio(prefixB, 3600))
	if !l.pass(burst) || len(l.u.cache[onlyKey(l.u.cache)].prefixes) != 1 {
		t.Error("the prefix isn't gone")
	}
	l.pass(time.Hour / 4)
	l.want(1, true, 2)
}

// No faster than once a second, and not for ever.
func TestAsksInModeration(t *testing.T) {
	t.Parallel()
	l := newLinkTimeline(t)
	l.carrier(true)
	l.pass(0)
	for range 600 { // one that speaks in two parts, half a second apart, without end
		l.hear(1800, pio(prefixA, 3600))
		l.pass(500 * time.Millisecond)
		l.hear(1800, pio(prefixB, 3600))
		l.pass(500 * time.Millisecond)
	}
	for i := range l.asked[1:] {
		if gap := l.asked[i+1] - l.asked[i]; gap < hastenedPause {
			t.Fatalf("asked again after %v", gap)
		}
	}
	if n := len(l.asked); n > 200 {
		t.Errorf("asked %d times in ten minutes", n)
	}
	if n := len(l.u.cache[onlyKey(l.u.cache)].prefixes); n != 2 {
		t.Errorf("%d prefixes", n)
	}
}
