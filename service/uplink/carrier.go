package uplink

import (
	"time"

	"gangway/service/vnet"
)

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
