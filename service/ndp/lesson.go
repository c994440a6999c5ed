package ndp

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"gangway/service/ndp/message"
	"gangway/service/vnet"
)

// retirement is how long guests may hold what was withdrawn: hosts don't let a valid lifetime be cut
// below two hours (RFC 4862 5.5.3 e).
const retirement = 2 * time.Hour

// Caps on what is remembered for a network.
const (
	maxLessons = 128 // routers
	maxTaught  = 256 // prefixes of a router, and as many retired ones
)

// lesson is what the guests of a network know of a router.
type lesson struct {
	// uplink is where it was heard.
	uplink string
	// asDefault and prefixes are what they may go by.
	asDefault bool
	prefixes  map[netip.Prefix]bool
	// left is when the router itself was withdrawn, zero if it wasn't, retired when prefixes of it were.
	left    time.Time
	retired map[netip.Prefix]time.Time
	// told is when they were last told anew of a withdrawal, zero if never by this process.
	told time.Time
	// bodies are what the router said, the newest first.
	bodies []body
}

func newLesson() *lesson {
	return &lesson{prefixes: map[netip.Prefix]bool{}, retired: map[netip.Prefix]time.Time{}}
}

// taught tells whether guests may go by anything of it.
func (l *lesson) taught() bool { return l.asDefault || len(l.prefixes) > 0 }

// withdrawn tells whether there is anything that guests are to forget.
func (l *lesson) withdrawn() bool { return !l.left.IsZero() || len(l.retired) > 0 }

// finals returns the bodies of the advertisements by which guests forget what was withdrawn, to be sent
// in this order. stands tells what others say that the guests may go by: an option of which it is true
// stays out, so that one router's end isn't that of what it shared.
func (l *lesson) finals(now time.Time, stands func(kind byte, said string) bool) [][]byte {
	forget := slices.SortedFunc(maps.Keys(l.retired), comparePrefixes)
	router := !l.left.IsZero() && !l.taught()
	if !router && len(forget) == 0 {
		return nil
	}
	var finals [][]byte
	for i, b := range slices.Backward(l.bodies) {
		if !router && i > 0 {
			continue // an older one would tell anew what the router no longer says
		}
		ra := b.ra
		if router {
			ra = b.only(func(kind byte, said string) bool { return !stands(kind, said) })
		}
		named := b.prefixes()
		mine := slices.DeleteFunc(slices.Clone(forget), func(p netip.Prefix) bool { return !slices.Contains(named, p) })
		forget = slices.DeleteFunc(forget, func(p netip.Prefix) bool { return slices.Contains(named, p) })
		if router || len(mine) > 0 {
			finals = append(finals, ra.Final(mine, router, now.Sub(b.at)))
		}
	}
	// What no advertisement names goes without options, in as many as fit a link (RFC 8200 5).
	const fit = (1280 - 40 - headerLen) / 32
	for part := range slices.Chunk(forget, fit) {
		if len(l.bodies) == 0 {
			finals = append(finals, message.Withdrawal(part))
			continue
		}
		b := l.bodies[0]
		bare := b.only(func(byte, string) bool { return false })
		finals = append(finals, bare.Final(part, router, now.Sub(b.at)))
	}
	if len(finals) == 0 {
		finals = append(finals, message.Withdrawal(nil))
	}
	return finals
}

// retire notes that guests are to forget the prefix; the two hours begin once.
func (l *lesson) retire(p netip.Prefix, now time.Time) {
	if _, ok := l.retired[p]; ok {
		return
	}
	if len(l.retired) >= maxTaught {
		oldest := p
		for q, t := range l.retired {
			if oldest == p || t.Before(l.retired[oldest]) {
				oldest = q
			}
		}
		delete(l.retired, oldest)
	}
	l.retired[p] = now
}

// expire lets go of what was withdrawn long enough ago.
func (l *lesson) expire(now time.Time) (changed bool) {
	over := func(t time.Time) bool { return !t.IsZero() && now.Sub(t) >= retirement }
	if over(l.left) {
		l.left, changed = time.Time{}, true
	}
	for p, t := range l.retired {
		if over(t) {
			delete(l.retired, p)
			changed = true
		}
	}
	return changed
}

// next is when expire has something to do; zero for never.
func (l *lesson) next() time.Time {
	var next time.Time
	for _, t := range l.retired {
		next = earlier(next, t)
	}
	if next = earlier(next, l.left); next.IsZero() {
		return next
	}
	return next.Add(retirement)
}

// shown is the router as the network's guests know it.
func (l *lesson) shown(k key) vnet.Router {
	return vnet.Router{Address: k.address, MAC: k.mac.String(), Default: l.asDefault,
		Prefixes: slices.SortedFunc(maps.Keys(l.prefixes), comparePrefixes)}
}
