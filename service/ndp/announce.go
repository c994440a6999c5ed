package ndp

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"gangway/service/ndp/message"
	"gangway/service/plan"
)

const (
	// hasty is the Retrans Timer that shortens guests' duplicate address detection, which lasts one
	// (RFC 4862 5.1); usual is that of a router that doesn't say (RFC 4861 10: RETRANS_TIMER).
	hasty = 100 * time.Millisecond
	usual = time.Second
	// restoring is when they get the router's back.
	restoring = 1500 * time.Millisecond
)

// announcement is one that has shortened guests' timers.
type announcement struct {
	restore time.Time
	routers map[key][]body
}

// announce carries out plan.Announce.
func (r *Room) announce(op plan.Announce) (ports int, err error) {
	if op.Inner == "" {
		return r.announceSelf(op)
	}
	u := r.uplinks[op.Uplink]
	if u == nil {
		return 0, fmt.Errorf("cannot announce the routers of %q: it isn't listened to", op.Uplink)
	}
	now := r.now()
	n := r.network(op.Network)
	if n.bridge != op.Bridge || n.inner != op.Inner {
		n.bridge, n.inner = op.Bridge, op.Inner
		r.dirty = r.dirty || len(n.lessons) > 0
		r.place(op.Network, n)
	}
	n.announced = nil
	routers := map[key][]body{}
	for k, heard := range u.cache {
		routers[k] = heard.current()
		// It may have been taught when another interface led to it: from now on it is heard here.
		if l := n.lessons[k]; l != nil && l.taught() && l.uplink != op.Uplink {
			l.uplink, r.dirty = op.Uplink, true
		}
	}
	if len(routers) > 0 {
		n.announced = &announcement{restore: now.Add(restoring), routers: routers}
		err = errors.Join(r.speak(n, routers, now, hasty), r.move(n, u, now))
		n.told = op.Uplink
		n.tellAgain(now)
	}
	u.ask(now)
	r.hurry()
	return len(n.ports), err
}

// speak sends what routers said to each guest port. With retrans 0, the Retrans Timer is the router's.
func (r *Room) speak(n *network, routers map[key][]body, now time.Time, retrans time.Duration) error {
	var frames [][]byte
	for _, k := range slices.SortedFunc(maps.Keys(routers), key.compare) {
		for _, b := range slices.Backward(routers[k]) {
			timer := retrans
			if timer == 0 && b.ra.RetransTimer() == 0 {
				timer = usual
			}
			said := b.ra.Announcement(now.Sub(b.at), timer)
			frames = append(frames, k.frame(message.AllNodes, message.Multicast(message.AllNodes), said))
		}
	}
	var failures []error
	for index := range n.ports {
		failures = append(failures, r.sendAll(index, frames))
	}
	return errors.Join(failures...)
}

// restore gives guests the routers' own timers back, unless they have forgotten these routers since.
func (r *Room) restore(n *network, now time.Time) {
	a := n.announced
	if a == nil || now.Before(a.restore) {
		return
	}
	n.announced = nil
	for k := range a.routers {
		if l := n.lessons[k]; l != nil && !l.taught() {
			delete(a.routers, k)
		} else if newer := r.bodiesOf(k); newer != nil {
			a.routers[k] = newer
		}
	}
	if err := r.speak(n, a.routers, now, 0); err != nil {
		r.log.Warn("guests keep short timers until their router speaks", "error", err)
	}
}

// bodiesOf returns how things are with a router, if it is still heard.
func (r *Room) bodiesOf(k key) []body {
	for _, u := range r.uplinks {
		if heard := u.cache[k]; heard != nil {
			return heard.current()
		}
	}
	return nil
}

// tellings are when the link is told again where guests are (RFC 4861 7.2.6 allows three times): a port that just
// came may not pass frames on yet, and a router that knows a guest by another MAC address, as of before when the laptop
// answered for it, may go on using that for half a minute.
var tellings = []time.Duration{250 * time.Millisecond, time.Second}

func (n *network) tellAgain(now time.Time) {
	n.tellings = n.tellings[:0]
	for _, d := range tellings {
		n.tellings = append(n.tellings, now.Add(d))
	}
}

// tellLink tells the uplink's link again where guests are, when that is due.
func (r *Room) tellLink(n *network, now time.Time) {
	due := false
	for len(n.tellings) > 0 && !now.Before(n.tellings[0]) {
		n.tellings, due = n.tellings[1:], true
	}
	u := r.uplinks[n.told]
	if !due || u == nil {
		return
	}
	var err error
	switch {
	case n.served == nil && n.inner != "" && n.linked:
		err = r.move(n, u, now)
	case n.served != nil && n.served.spec.Proxy && n.served.spec.Uplink == n.told:
		err = r.moveHere(n, u, now)
	}
	if err != nil {
		r.log.Debug("a link was not told again where guests are", "uplink", n.told, "error", err)
	}
}

// move tells the link where the network's guests are now, so that switches send there what is for
// them (RFC 4861 7.2.6).
func (r *Room) move(n *network, u *uplink, now time.Time) error {
	inner, err := r.sender.index(n.inner)
	if err != nil {
		return fmt.Errorf("cannot tell where guests are by %q: %w", n.inner, err)
	}
	var frames [][]byte
	for _, p := range n.neighbours.on(u.prefixes(), now) {
		frames = append(frames, message.UnsolicitedAdvertisement(p.address, p.mac).Marshal())
	}
	return r.sendAll(inner, frames)
}
