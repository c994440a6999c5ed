package ndp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"gangway/service/ndp/message"
	"gangway/service/plan"
	"gangway/service/vnet"
)

// When a bridge advertises itself without being asked: this often, or three times in what its word is good for;
// and of news no more often than each hushed (RFC 4861 6.2.6, 10: MIN_DELAY_BETWEEN_RAS).
const (
	interval = 200 * time.Second
	hushed   = 3 * time.Second
)

// served is a network whose bridge is its guests' router.
type served struct {
	spec plan.ServeSpec
	key  key
	host map[netip.Addr]bool
	// announced is set when guests were told unasked.
	announced bool
	// said is what they were told last, at sent.
	said composition
	sent time.Time
	// due is when they are told again; restore is until when their timers are short.
	due, restore time.Time
	// spoken are the options whose end would be news to them.
	spoken spoken
	// waiting are those whose question can't be answered yet, by port.
	waiting map[int]*message.Solicitation
	// kept is when the disk last had how long all of it lasts.
	kept time.Time
}

// learns tells whether guests' addresses are learned one by one: they are where the bridge's link is not
// the only one with their prefix.
func (n *network) learns() bool {
	return n.served != nil && (n.served.spec.Proxy || !n.served.spec.OnLink && len(n.served.spec.Prefixes) > 0)
}

// own returns what guests were taught of the bridge that serves them; nil if it doesn't, or if they
// may go by nothing of it.
func (n *network) own() *lesson {
	if n.served == nil {
		return nil
	}
	if l := n.lessons[n.served.key]; l != nil && l.taught() {
		return l
	}
	return nil
}

// unasked picks what guests are told of without asking: not of their bridge before Announce.
func (n *network) unasked(l *lesson) bool { return l != n.own() || n.served.announced }

// serve carries out plan.Serve.
func (r *Room) serve(op plan.Serve) error {
	spec := op.Spec
	named, err := keysOf(op, []vnet.Router{spec.Router()})
	if err != nil {
		return err
	}
	now := r.now()
	n := r.network(spec.Network)
	if n.bridge != spec.Bridge {
		n.bridge = spec.Bridge
		r.dirty = r.dirty || len(n.lessons) > 0
	}
	r.place(spec.Network, n)
	s := &served{spec: spec, key: named[0].key, host: map[netip.Addr]bool{}, spoken: spoken{}, waiting: map[int]*message.Solicitation{}}
	for _, a := range spec.Host {
		s.host[a] = true
	}
	switch old := n.served; {
	case old == nil:
		n.neighbours.doubt(now.Add(-r.probing))
	case old.key == s.key:
		s.spoken, s.sent, s.said, s.kept = old.spoken, old.sent, old.said, old.kept
		if old.spec.Uplink == spec.Uplink {
			s.announced, s.due, s.restore, s.waiting = old.announced, old.due, old.restore, old.waiting
		} else {
			clear(n.claims)
		}
	}
	n.served = s
	if l := n.lessons[s.key]; l != nil && len(s.spoken) == 0 {
		s.spoken.recall(l.bodies)
	}
	n.neighbours.refuse(func(a netip.Addr) bool { return s.host[a] })
	r.share()
	r.listenToGuests()
	r.listenToNeighbours()
	r.review(n, now)
	r.hurry()
	return nil
}

// stopServing carries out plan.StopServing.
func (r *Room) stopServing(op plan.StopServing) {
	if n := r.networks[op.Network]; n != nil && n.served != nil {
		n.served = nil
		clear(n.claims)
		n.neighbours.settle()
		r.share()
		r.listenToGuests()
		r.listenToNeighbours()
	}
}

// announceSelf carries out plan.Announce for a network that is served by its bridge.
func (r *Room) announceSelf(op plan.Announce) (ports int, err error) {
	n := r.networks[op.Network]
	switch {
	case n == nil || n.served == nil:
		return 0, fmt.Errorf("cannot %s: its bridge doesn't serve it", op)
	case n.served.spec.Uplink != op.Uplink:
		return 0, fmt.Errorf("cannot %s: it is served by %q", op, n.served.spec.Uplink)
	}
	now := r.now()
	if n.inner != "" || n.bridge != op.Bridge {
		n.inner, n.bridge = "", op.Bridge
		r.dirty = r.dirty || len(n.lessons) > 0
		r.place(op.Network, n)
	}
	n.announced = nil
	s := n.served
	s.announced, s.restore = true, now.Add(restoring)
	err = r.advertise(n, now)
	if u := r.uplinks[op.Uplink]; u != nil {
		if s.spec.Proxy {
			err = errors.Join(err, r.moveHere(n, u, now))
			n.told = op.Uplink
			n.tellAgain(now)
		}
		u.ask(now)
	}
	r.hurry()
	return len(n.ports), err
}

// moveHere tells the uplink's link that guests who are neighbours there are at the uplink's MAC address now, whatever
// was known of them (RFC 4861 7.2.6).
func (r *Room) moveHere(n *network, u *uplink, now time.Time) error {
	if u.mac == (message.MAC{}) {
		return nil
	}
	var frames [][]byte
	for _, a := range r.shownNeighbours(n) {
		frames = append(frames, message.UnsolicitedAdvertisement(a.Address, u.mac).Marshal())
	}
	return r.sendAll(u.listener.index, frames)
}

// advertise tells each guest port what its bridge says now, if there is anything to be said, and plans
// when it is told again.
func (r *Room) advertise(n *network, now time.Time) error {
	s := n.served
	s.due = now.Add(interval)
	frames := r.advertisements(n, now, message.AllNodes, message.Multicast(message.AllNodes))
	if len(frames) > 0 {
		s.due = now.Add(min(interval, max(hushed, s.said.least/3)))
	}
	if now.Before(s.restore) {
		s.due = earlier(s.due, s.restore)
	}
	var failures []error
	for index := range n.ports {
		failures = append(failures, r.sendAll(index, frames))
	}
	return errors.Join(failures...)
}

// advertisements are the frames of what the bridge says now, which counts as said.
func (r *Room) advertisements(n *network, now time.Time, to netip.Addr, mac message.MAC) [][]byte {
	c := r.compose(n, now)
	if c == nil {
		return nil
	}
	s := n.served
	r.keep(n, c, now)
	s.spoken.note(c, now)
	if to == message.AllNodes && mac == message.Multicast(to) {
		s.said, s.sent = *c, now
	}
	header := c.header
	if now.Before(s.restore) {
		header.RetransTimer = hasty
	}
	var frames [][]byte
	for _, body := range message.Compose(header, c.options) {
		frames = append(frames, s.key.frame(to, mac, body))
	}
	return frames
}

// keepAgain is after how long what is on disk of an unchanged advertisement is too old.
const keepAgain = 10 * time.Minute

// keep remembers what the bridge says, for the day on which its guests are to forget it.
func (r *Room) keep(n *network, c *composition, now time.Time) {
	s := n.served
	l := n.lessons[s.key]
	before := allSaid(l.bodies)
	l.bodies = nil
	for _, b := range message.Compose(c.header, c.options) {
		if ra, err := message.ParseBody(b, s.key.address, s.key.mac); err == nil {
			l.bodies = append(l.bodies, newBody(ra, now))
		}
	}
	if !slices.Equal(before, allSaid(l.bodies)) {
		r.dirty, s.kept = true, now
		r.saveBy = earlier(r.saveBy, now.Add(saveDelay))
	} else if now.Sub(s.kept) >= keepAgain {
		r.dirty, s.kept = true, now // with whatever is saved next
	}
}

// allFinals are the frames by which guests forget what was withdrawn of the routers that are chosen, and hear
// what their bridge says, if that is.
func (r *Room) allFinals(n *network, now time.Time, to netip.Addr, mac message.MAC, chosen func(*lesson) bool) [][]byte {
	own := n.own()
	frames := n.allFinals(now, to, mac, func(l *lesson) bool { return l != own && chosen(l) })
	if own != nil && chosen(own) {
		frames = append(frames, r.advertisements(n, now, to, mac)...)
	}
	return frames
}

// await has a guest answered as soon as there is something to be said; the uplink's routers are asked.
func (r *Room) await(n *network, port int, s *message.Solicitation, now time.Time) {
	n.served.waiting[port] = s
	if u := r.uplinks[n.served.spec.Uplink]; u != nil {
		u.askSoon(now)
		r.hurry()
	}
}
