package ndp

import (
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

// burst is the time in which advertisements of one router count as one that was split.
const burst = 250 * time.Millisecond

// misses is after how many advertisements without it a prefix is no longer advertised.
const misses = 2

// cache is what is known of the routers of a link. It is pure: what is heard, and when, comes
// from outside.
type cache map[key]*router

type router struct {
	// until is when it is no longer a default router; zero if it is none.
	until    time.Time
	prefixes map[netip.Prefix]*heard
	// bodies are its advertisements, the newest first.
	bodies []body
}

// heard is a prefix.
type heard struct {
	until time.Time // zero for ever
	// missed is how many advertisements lacked it since the last that had it, and missedAt when the
	// last of these came.
	missed   int
	missedAt time.Time
}

// hear takes note of an advertisement. changed tells whether shown is other than before.
func (c cache) hear(ra *message.RouterAdvertisement, now time.Time) (changed bool) {
	k := key{ra.From, ra.MAC}
	r := c[k]
	if r == nil {
		if len(c) >= maxRouters {
			return false // a router that has been there is worth more than one more
		}
		r = &router{prefixes: map[netip.Prefix]*heard{}}
		c[k] = r
	}
	_, known := c[k], len(r.bodies) > 0
	before := !r.until.IsZero()
	r.until = time.Time{}
	if life := ra.RouterLifetime(); life > 0 {
		r.until = now.Add(life)
	}
	changed = before != !r.until.IsZero()
	b := newBody(ra, now)
	r.bodies, _ = remember(r.bodies, b)
	changed = r.note(ra, now) || changed
	if r.gone() {
		delete(c, k)
		return known
	}
	return changed || !known
}

// note brings the prefixes up to date.
func (r *router) note(ra *message.RouterAdvertisement, now time.Time) (changed bool) {
	had := map[netip.Prefix]bool{}
	for _, p := range ra.Prefixes() {
		had[p.Prefix] = true
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
		*h = heard{}
		if p.Valid != message.Infinity {
			h.until = now.Add(p.Valid)
		}
	}
	for p, h := range r.prefixes {
		if had[p] || h.missed > 0 && now.Sub(h.missedAt) < burst {
			continue
		}
		h.missed++
		h.missedAt = now
		if h.missed >= misses {
			delete(r.prefixes, p)
			changed = true
		}
	}
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
		if !r.until.IsZero() && !now.Before(r.until) {
			r.until = time.Time{}
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

// shown is what others see of it.
func (c cache) shown() []vnet.Router {
	var list []vnet.Router
	for _, k := range slices.SortedFunc(maps.Keys(c), key.compare) {
		r := c[k]
		list = append(list, vnet.Router{Address: k.address, MAC: k.mac.String(), Default: !r.until.IsZero(),
			Prefixes: slices.SortedFunc(maps.Keys(r.prefixes), netip.Prefix.Compare)})
	}
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
			if h := r.prefixes[p]; h != nil && h.missed < misses && !named[p] {
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
