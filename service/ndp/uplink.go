package ndp

import (
	"fmt"
	"net/netip"
	"time"

	"gangway/service/ndp/message"
	"gangway/service/vnet"
)

const (
	// settling is how long is listened until what was not heard isn't there.
	settling = 5 * time.Second
	// forgiving is for how long a lost carrier, if it comes back, leads to the same link (vnet.Uplink's
	// LostCarrier).
	forgiving = 3 * time.Second
	// solicitations are sent up to three times, four seconds apart, until a router speaks (RFC 4861
	// 10: MAX_RTR_SOLICITATIONS, RTR_SOLICITATION_INTERVAL); each second, and not again for a while, to
	// know whether a prefix is gone.
	solicitations  = 3
	solicitPause   = 4 * time.Second
	hastenedPause  = time.Second
	hastenAgain    = 10 * time.Second
	ethernetType   = 1 // ARPHRD_ETHER
	unspecifiedMAC = "00:00:00:00:00:00"
)

// uplink is an interface that is listened to. It is pure, but for the listener.
type uplink struct {
	name     string
	listener *listener
	dead     bool // the listener ended by itself
	mac      message.MAC
	address  netip.Addr // link-local, to ask from; unspecified if there is none
	cache    cache

	carrier bool
	lost    time.Time // when the carrier went; zero if it didn't, or the cache is cleared
	since   time.Time // when listening began, with carrier; zero without
	settled bool

	asks      int       // solicitations to be sent
	askAt     time.Time // when the next is
	lastAsked time.Time
	hastened  bool      // they are about a doubtful prefix
	doubted   time.Time // when such a series last began
	renew     time.Time // when half of what its default routers have left is over

	// What follows is for networks that share the uplink.

	review    bool      // its routers may have said something new
	reviewed  time.Time // when that was last looked at
	ear       *listener // for solicitations and advertisements of neighbours
	questions questions // of neighbours, for guests that aren't known
}

// link notes the interface's state.
func (u *uplink) link(l vnet.Link, own netip.Addr, now time.Time) {
	if mac, err := message.ParseMAC(l.MAC); err == nil && l.MAC != unspecifiedMAC {
		u.mac = mac
	}
	u.address = own
	u.pass(now) // a loss that nobody looked at meanwhile, as of a machine that slept
	carrier := l.Up && l.Carrier
	switch {
	case carrier && !u.carrier:
		u.lost = time.Time{}
		if u.since.IsZero() {
			u.since = now
		}
		u.ask(now)
	case !carrier && u.carrier:
		u.lost = now
	}
	u.carrier = carrier
}

// ask begins to solicit, at once.
func (u *uplink) ask(now time.Time) { u.asks, u.askAt, u.hastened = solicitations, now, false }

// askSoon begins to solicit as soon as that isn't more than once a second.
func (u *uplink) askSoon(now time.Time) {
	if u.asks > 0 && !u.askAt.After(now.Add(hastenedPause)) {
		return
	}
	u.ask(now)
	if soonest := u.lastAsked.Add(hastenedPause); !u.lastAsked.IsZero() && now.Before(soonest) {
		u.askAt = soonest
	}
}

// hasten begins to solicit because a prefix was missing. A router that speaks in parts with pauses
// in between is in doubt for ever, so that isn't done too often.
func (u *uplink) hasten(now time.Time) {
	switch {
	case !u.cache.doubtful():
		if u.hastened {
			u.asks, u.hastened = 0, false
		}
	case u.asks == 0 && (u.doubted.IsZero() || now.Sub(u.doubted) >= hastenAgain):
		u.asks, u.askAt, u.hastened, u.doubted = solicitations, now, true, now
		if soonest := u.lastAsked.Add(hastenedPause); !u.lastAsked.IsZero() && now.Before(soonest) {
			u.askAt = soonest
		}
	}
}

// hear notes an advertisement. changed tells whether what is shown is other than before.
func (u *uplink) hear(ra *message.RouterAdvertisement, now time.Time) (changed bool) {
	changed = u.cache.hear(ra, now) || !u.settled
	u.settled = true
	if u.since.IsZero() { // the carrier is there, it seems, and will be seen
		u.since = now
	}
	if !u.hastened {
		u.asks = 0 // RFC 4861 6.3.7: a router has spoken
	}
	u.hasten(now)
	u.renewFrom(now)
	return changed
}

// pass lets time pass. changed tells whether what is shown is other than before.
func (u *uplink) pass(now time.Time) (changed bool) {
	if !u.lost.IsZero() && now.Sub(u.lost) >= forgiving {
		changed = u.settled || len(u.cache) > 0
		clear(u.cache)
		u.lost, u.since, u.settled, u.asks = time.Time{}, time.Time{}, false, 0
	}
	if !u.settled && u.carrier && !u.since.IsZero() && now.Sub(u.since) >= settling {
		u.settled, changed = true, true
	}
	changed = u.cache.expire(now) || changed
	u.hasten(now)
	return changed
}

// due tells whether to solicit now, and takes it as done.
func (u *uplink) due(now time.Time) bool {
	if u.asks == 0 || !u.carrier || now.Before(u.askAt) {
		return false
	}
	u.asks--
	u.lastAsked = now
	if u.askAt = now.Add(solicitPause); u.hastened {
		u.askAt = now.Add(hastenedPause)
	}
	return true
}

// next is when pass or due has something to do; zero for never.
func (u *uplink) next() time.Time {
	next := u.cache.next()
	if !u.lost.IsZero() {
		next = earlier(next, u.lost.Add(forgiving))
	}
	if !u.settled && u.carrier && !u.since.IsZero() {
		next = earlier(next, u.since.Add(settling))
	}
	if u.asks > 0 && u.carrier {
		next = earlier(next, u.askAt)
	}
	return next
}

// autonomous are the prefixes that guests who share the uplink's link have addresses of.
func (u *uplink) autonomous() []netip.Prefix {
	var list []netip.Prefix
	for _, r := range u.cache {
		list = append(list, r.autonomous()...)
	}
	return list
}

// close ends all listening.
func (u *uplink) close() {
	u.listener.close()
	u.hush()
}

// hush ends listening to neighbours.
func (u *uplink) hush() {
	if u.ear != nil {
		u.ear.close()
		u.ear = nil
	}
}

// prefixes are those of all its routers.
func (u *uplink) prefixes() []netip.Prefix {
	var list []netip.Prefix
	for _, r := range u.cache {
		for p := range r.prefixes {
			list = append(list, p)
		}
	}
	return list
}

// solicit asks the link's routers to speak.
func (r *Room) solicit(u *uplink) {
	if u.mac == (message.MAC{}) {
		return
	}
	if err := r.sender.send(u.listener.index, message.RouterSolicitation(u.address, u.mac).Marshal()); err != nil {
		r.log.Debug("cannot solicit routers", "interface", u.name, "error", err)
	}
}

// openUplink begins to listen to the interface.
func (r *Room) openUplink(name string, index int) (*uplink, error) {
	l, err := listen(index, filterFor(false, message.TypeRouterAdvertisement), allNodes)
	if err != nil {
		return nil, fmt.Errorf("cannot listen to the routers of %q: %w", name, err)
	}
	u := &uplink{name: name, listener: l, cache: cache{}, address: netip.IPv6Unspecified()}
	r.running.Go(func() {
		err := l.receive(routerFrame, func(frame []byte) { r.heard(u, frame) })
		r.mu.Lock()
		defer r.mu.Unlock()
		if err != nil && r.uplinks[name] == u {
			r.log.Warn("cannot listen to routers", "interface", name, "error", err)
			u.dead = true
			r.news("cannot listen on " + name)
		}
	})
	return u, nil
}

// heard is called with each frame on an uplink that may be an advertisement.
func (r *Room) heard(u *uplink, frame []byte) {
	f, err := message.ParseFrame(frame)
	if err != nil {
		return
	}
	ra, err := message.ParseRouterAdvertisement(f)
	if err != nil {
		return // a flood of them must not flood the log
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.uplinks[u.name] != u {
		return
	}
	now := r.now()
	k := key{ra.From, ra.MAC}
	if known := u.cache[k]; known == nil || known.burst.IsZero() {
		r.hurry() // there will be something to do when it is complete
	}
	if u.hear(ra, now) {
		r.news("routers of " + u.name)
	}
	if len(r.sharing[u.name]) > 0 {
		u.review = true
		r.hurry()
	}
	for _, n := range r.networks {
		if l := n.lessons[k]; l != nil && l.taught() && l.uplink == u.name && l.remember(newBody(ra, now)) {
			r.dirty = true
			r.saveBy = earlier(r.saveBy, now.Add(saveDelay))
		}
	}
}
