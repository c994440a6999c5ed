package ndp

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"gangway/service/ndp/message"
	"gangway/service/plan"
)

// repetitions are when guests are told again of a withdrawal: frames get lost, above all those to a
// guest that is busy.
var repetitions = []time.Duration{250 * time.Millisecond, 3 * time.Second, 6 * time.Second, 9 * time.Second}

// recent is how long ago a withdrawal may have been told of to be repeated; portPause is when a new
// port is told again.
const (
	recent    = 15 * time.Second
	portPause = time.Second
)

// teach carries out plan.Teach.
func (r *Room) teach(op plan.Teach) error {
	routers, err := keysOf(op, op.Routers)
	if err != nil {
		return err
	}
	n := r.network(op.Network)
	changed, err := n.teach(op.Uplink, routers, r.bodies(op.Uplink))
	r.dirty = r.dirty || changed
	if changed && err == nil {
		r.taught = append(r.taught, n)
	}
	return err
}

// withdraw carries out plan.Withdraw. Guests come first, the disk second: killed in between, the next
// process finds the routers taught and withdraws them again.
func (r *Room) withdraw(op plan.Withdraw) (ports int, err error) {
	routers, err := keysOf(op, op.Routers)
	if err != nil {
		return 0, err
	}
	now := r.now()
	n := r.network(op.Network)
	if n.bridge != op.Bridge {
		n.bridge = op.Bridge
		r.place(op.Network, n)
	}
	n.withdraw(routers, now, r.bodies(""))
	var frames [][]byte
	own := n.own()
	for _, k := range routers {
		if l := n.lessons[k.key]; l == own && own != nil {
			s := n.served // what comes in place of it is as new to guests as what is announced
			s.restore = now.Add(restoring)
			s.due = earlier(s.due, s.restore)
			frames = append(frames, r.advertisements(n, now, message.AllNodes, message.Multicast(message.AllNodes))...)
			continue
		}
		frames = append(frames, n.finals(k.key, now, message.AllNodes, message.Multicast(message.AllNodes))...)
	}
	err = r.tell(n, frames)
	n.repeatFrom(now)
	n.untold = n.index == 0
	r.listenToGuests()
	r.dirty = true
	r.hurry()
	return len(n.ports), err
}

// finals returns the frames by which guests forget what was withdrawn of the router.
func (n *network) finals(k key, now time.Time, to netip.Addr, mac message.MAC) [][]byte {
	l := n.lessons[k]
	if l == nil {
		return nil
	}
	var frames [][]byte
	for _, body := range l.finals(now, n.stands(k)) {
		frames = append(frames, k.frame(to, mac, body))
	}
	return frames
}

// allFinals returns those of all routers that chosen picks.
func (n *network) allFinals(now time.Time, to netip.Addr, mac message.MAC, chosen func(*lesson) bool) [][]byte {
	var frames [][]byte
	for _, k := range slices.SortedFunc(maps.Keys(n.lessons), key.compare) {
		if chosen(n.lessons[k]) {
			frames = append(frames, n.finals(k, now, to, mac)...)
		}
	}
	return frames
}

func all(*lesson) bool { return true }

// repeatFrom plans the repetitions of all that was told lately. They take the place of those of an earlier
// withdrawal: what that was about is told with them.
func (n *network) repeatFrom(now time.Time) {
	n.repeats = n.repeats[:0]
	for _, d := range repetitions {
		n.repeats = append(n.repeats, now.Add(d))
	}
}

// repeat tells again what is due.
func (r *Room) repeat(n *network, now time.Time) {
	due := 0
	for due < len(n.repeats) && !now.Before(n.repeats[due]) {
		due++
	}
	if due > 0 {
		n.repeats = slices.Delete(n.repeats, 0, due)
		r.complain(r.tell(n, r.allFinals(n, now, message.AllNodes, message.Multicast(message.AllNodes),
			func(l *lesson) bool { return !l.told.IsZero() && now.Sub(l.told) < recent })))
	}
	for index, p := range n.ports {
		if !p.again.IsZero() && !now.Before(p.again) {
			p.again = time.Time{}
			r.complain(r.tellPort(index, r.allFinals(n, now, message.AllNodes, message.Multicast(message.AllNodes), n.unasked)))
		}
	}
}

// answer tells a guest that asks for routers which ones there are no more, and, if its bridge is one, what that
// has to say, now or as soon as that is known.
func (r *Room) answer(n *network, port int, s *message.Solicitation, now time.Time) {
	if n.own() != nil && r.compose(n, now) == nil {
		r.await(n, port, s, now)
	}
	to := message.AllNodes
	if s.From.IsLinkLocalUnicast() {
		to = s.From
	}
	r.complain(r.tellPort(port, r.allFinals(n, now, to, s.MAC, all)))
}

// greet tells a new port of all that was withdrawn, and of its bridge, now and once more.
func (r *Room) greet(n *network, index int, now time.Time) {
	n.ports[index].again = now.Add(portPause)
	r.complain(r.tellPort(index, r.allFinals(n, now, message.AllNodes, message.Multicast(message.AllNodes), n.unasked)))
}

// tell sends the frames of a withdrawal to each port.
func (r *Room) tell(n *network, frames [][]byte) error {
	var failures []error
	for index := range n.ports {
		failures = append(failures, r.tellPort(index, frames))
	}
	return errors.Join(failures...)
}

func (r *Room) tellPort(index int, frames [][]byte) error {
	if r.mute {
		return nil
	}
	return r.sendAll(index, frames)
}

// sendAll sends the frames to the port. That it is down, gone or full is no error: who comes to
// it is told then, and the others again.
func (r *Room) sendAll(index int, frames [][]byte) error {
	for _, frame := range frames {
		err := r.sender.send(index, frame)
		for _, usual := range []error{unix.ENETDOWN, unix.ENXIO, unix.ENODEV, unix.ENOBUFS, unix.EAGAIN} {
			if errors.Is(err, usual) {
				err = nil
			}
		}
		if err != nil {
			return &portError{index, err}
		}
	}
	return nil
}

func (r *Room) complain(err error) {
	if err != nil {
		r.log.Warn("guests were not told of withdrawn routers", "error", err)
	}
}
