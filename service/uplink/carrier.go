package uplink

import (
	"time"

	"gangway/service/vnet"
)

// lostFor is how long a lost carrier is told of (vnet.Uplink.LostCarrier).
const lostFor = 3 * time.Second

// holds has the links, by index, whose carrier was lost so recently that it matters, and for
// how long it still will.
type holds struct {
	usable map[int]time.Duration // they count as having one
	lost   map[int]time.Duration // it is told of
}

// recheck is when what the link says changes by itself, 0 for never.
func (h holds) recheck(index int) time.Duration {
	first := time.Duration(0)
	for _, m := range []map[int]time.Duration{h.usable, h.lost} {
		if left, ok := m[index]; ok && (first == 0 || left < first) {
			first = left
		}
	}
	return first
}

// carriers remembers of each link, by index, whether it was seen with a carrier and when
// it was first seen without: the zero time if it never had one.
type carriers map[int]carrier

type carrier struct {
	on   bool
	lost time.Time
}

// observe returns the memory after the dump. A link that is set down has no
// carrier to wait for: somebody meant it.
func (c carriers) observe(k *vnet.Kernel, now time.Time) carriers {
	next := make(carriers, len(k.Links))
	for _, l := range k.Links {
		before, known := c[l.Index]
		switch {
		case l.Carrier:
			next[l.Index] = carrier{on: true}
		case !l.Up || !known:
			next[l.Index] = carrier{}
		case before.on:
			next[l.Index] = carrier{lost: now}
		default:
			next[l.Index] = before
		}
	}
	return next
}

// remaining returns for each link whose carrier was lost less than holdDown ago how
// long it still counts as there.
func (c carriers) remaining(holdDown time.Duration, now time.Time) map[int]time.Duration {
	left := map[int]time.Duration{}
	for index, link := range c {
		if link.lost.IsZero() {
			continue
		}
		if d := link.lost.Add(holdDown).Sub(now); d > 0 {
			left[index] = d
		}
	}
	return left
}
