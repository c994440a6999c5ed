package ndp

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"gangway/service/ndp/message"
	"gangway/service/vnet"
)

// Caps on what a link can make us remember.
const (
	maxRouters  = 16 // of an uplink
	maxPrefixes = 64 // of a router
)

// burst is the time in which advertisements of one router count as one that was split (RFC 4861 6.2.3).
const burst = 250 * time.Millisecond

// slaacBits is the length of prefixes that hosts on Ethernet make addresses of (RFC 4862 5.5.3 d,
// RFC 2464 4).
const slaacBits = 64

// misses is after how many advertisements without it a prefix is no longer advertised.
const misses = 2

// cache is what is known of the routers of a link. It is pure: what is heard, and when, comes
// from outside.
type cache map[key]*router

type router struct {
	// until is when it is no longer a default router; zero if it is none.
	until time.Time
	// preference is vnet.Router's.
	preference int
	prefixes   map[netip.Prefix]*heard
	// burst is when the advertisement began that may have more parts; zero when it is complete.
	burst time.Time
	// bodies are its advertisements, the newest first.
	bodies []body
}

// heard is a prefix.
type heard struct {
	until time.Time // zero for ever
	at    time.Time
	// missed is how many advertisements lacked it since the last that had it.
	missed int
	// autonomous tells that hosts may make themselves addresses of it.
	autonomous bool
}

// hear takes note of an advertisement. changed tells whether shown is other than before.
func (c cache) hear(ra *message.RouterAdvertisement, now time.Time) (changed bool) {
	k := key{ra.From, ra.MAC}
	r, known := c[k]
	if known {
		changed = r.complete(now)
	} else {
		if len(c) >= maxRouters {
			return false // a router that has been there is worth more than one more
		}
		r = &router{prefixes: map[netip.Prefix]*heard{}}
		c[k] = r
	}
	before := r.until.IsZero()
	r.until = time.Time{}
	if life := ra.RouterLifetime(); life > 0 {
		r.until = now.Add(life)
	}
	changed = changed || before != r.until.IsZero() || r.preference != int(ra.Preference())
	r.preference = int(ra.Preference())
	if r.burst.IsZero() {
		r.burst = now
	}
	r.bodies, _ = remember(r.bodies, newBody(ra, now))
	changed = r.note(ra, now) || changed
	if r.gone() {
		delete(c, k)
		return known
	}
	return changed || !known
}

// note brings the prefixes up to date.
func (r *router) note(ra *message.RouterAdvertisement, now time.Time) (changed bool) {
	for _, p := range ra.Prefixes() {
		if !p.OnLink && !p.Autonomous {
			continue // it tells of a prefix that isn't for use (RFC 4861 6.3.4, RFC 4862 5.5.3 a)
		}
		h := r.prefixes[p.Prefix]
		switch {
		case p.Valid == 0:
			changed = changed || h != nil
			delete(r.prefixes, p.Prefix)
			continue
		case h == nil && len(r.prefixes) >= maxPrefixes:
			continue
		case h == nil:
			h = &heard{}
			r.prefixes[p.Prefix] = h
			changed = true
		}
		autonomous := p.Autonomous && p.Prefix.Bits() == slaacBits || h.autonomous && h.at.Equal(now)
		changed = changed || h.autonomous != autonomous
		*h = heard{at: now, autonomous: autonomous}
		if p.Valid != message.Infinity {
			h.until = now.Add(p.Valid)
		}
	}
	return changed
}

// complete looks, once all parts of an advertisement must have come, which prefixes it lacked: those that
// the one before lacked, too, are no longer advertised.
func (r *router) complete(now time.Time) (changed bool) {
	if r.burst.IsZero() || now.Sub(r.burst) < burst {
		return false
	}
	for p, h := range r.prefixes {
		if !h.at.Before(r.burst) {
			continue
		}
		if h.missed++; h.missed >= misses {
			delete(r.prefixes, p)
			changed = true
		}
	}
	r.burst = time.Time{}
	return changed
}

func (r *router) gone() bool { return r.until.IsZero() && len(r.prefixes) == 0 }

// doubtful tells whether a prefix was missing from the last advertisements, but not from enough.
func (c cache) doubtful() bool {
	for _, r := range c {
		for _, h := range r.prefixes {
			if h.missed > 0 {
				return true
			}
		}
	}
	return false
}

// expire lets go of what is over. changed tells whether anything was.
func (c cache) expire(now time.Time) (changed bool) {
	for k, r := range c {
		changed = r.complete(now) || changed
		if !r.until.IsZero() && !now.Before(r.until) {
			r.until, r.preference = time.Time{}, 0
			changed = true
		}
		for p, h := range r.prefixes {
			if !h.until.IsZero() && !now.Before(h.until) {
				delete(r.prefixes, p)
				changed = true
			}
		}
		if r.gone() {
			delete(c, k)
			changed = true
		}
	}
	return changed
}

// next is when expire has something to do; zero for never.
func (c cache) next() time.Time {
	var next time.Time
	for _, r := range c {
		next = earlier(next, r.until)
		if !r.burst.IsZero() {
			next = earlier(next, r.burst.Add(burst))
		}
		for _, h := range r.prefixes {
			next = earlier(next, h.until)
		}
	}
	return next
}

// earlier returns the earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// shown is what others see of it.
func (c cache) shown() []vnet.Router {
	var list []vnet.Router
	for _, k := range slices.SortedFunc(maps.Keys(c), key.compare) {
		r := c[k]
		list = append(list, vnet.Router{Address: k.address, MAC: k.mac.String(), Default: !r.until.IsZero(), Preference: r.preference,
			Prefixes: slices.SortedFunc(maps.Keys(r.prefixes), comparePrefixes), Autonomous: r.autonomous()})
	}
	return list
}

// shared tells whether hosts of the link make themselves addresses of this one's prefix.
func (c cache) shared(a netip.Addr) bool {
	p, err := a.Prefix(slaacBits)
	for _, r := range c {
		if h := r.prefixes[p]; err == nil && h != nil && h.autonomous {
			return true
		}
	}
	return false
}

// autonomous are the prefixes that hosts may make themselves addresses of, sorted.
func (r *router) autonomous() []netip.Prefix {
	var list []netip.Prefix
	for p, h := range r.prefixes {
		if h.autonomous {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, comparePrefixes)
	return list
}

// current returns those of its advertisements that still tell how things are: the newest, what
// came with it, and others that name a prefix which the newer ones don't.
func (r *router) current() []body {
	var list []body
	named := map[netip.Prefix]bool{}
	for i, b := range r.bodies {
		fresh := i == 0 || r.bodies[0].at.Sub(b.at) < burst
		for _, p := range b.prefixes() {
			if r.prefixes[p] != nil && !named[p] {
				fresh = true
			}
		}
		if !fresh {
			continue
		}
		list = append(list, b)
		for _, p := range b.prefixes() {
			named[p] = true
		}
	}
	return list
}
