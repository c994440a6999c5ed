package ndp

import (
	"net/netip"
	"slices"
	"time"

	"gangway/service/ndp/message"
)

// A neighbour's question for an address that isn't known is passed on to guests, once in askAgain for each
// address, and not more often than askRate allows, for a link that is searched for hosts must not flood
// them. So many are open at once, with so many askers, for questionTime.
const (
	maxQuestions = 256
	maxAskers    = 4
	askAgain     = time.Second
	questionTime = 3 * time.Second
	askBurst     = 100
	askPause     = 10 * time.Millisecond
)

// questions are the open ones of an uplink's neighbours.
type questions struct {
	list map[netip.Addr]*question
	rate allowance
}

// question is an address that neighbours asked for.
type question struct {
	asked   time.Time // when guests last were
	network *network  // whose guest has it, nil as long as none is found
	askers  []asker
}

type asker struct {
	address netip.Addr
	mac     message.MAC
}

// ask notes who asks. It tells whether guests are to be asked now.
func (q *questions) ask(target netip.Addr, who asker, now time.Time) bool {
	if q.list == nil {
		q.list = map[netip.Addr]*question{}
	}
	open := q.list[target]
	if open == nil {
		if len(q.list) >= maxQuestions {
			q.expire(now)
		}
		if len(q.list) >= maxQuestions || !q.rate.take(now, askBurst, askPause) {
			return false
		}
		q.list[target] = &question{asked: now, askers: []asker{who}}
		return true
	}
	if !slices.Contains(open.askers, who) && len(open.askers) < maxAskers {
		open.askers = append(open.askers, who)
	}
	if now.Sub(open.asked) < askAgain || !q.rate.take(now, askBurst, askPause) {
		return false
	}
	open.asked = now
	return true
}

func (q *questions) expire(now time.Time) {
	for target, open := range q.list {
		if now.Sub(open.asked) >= questionTime {
			delete(q.list, target)
		}
	}
}

// found notes that a guest of the network has the address that neighbours may have asked for. Who wants it himself
// is told at once.
func (r *Room) found(u *uplink, n *network, target netip.Addr) {
	q := u.questions.list[target]
	if q == nil || q.network != nil {
		return
	}
	q.network = n
	q.askers = slices.DeleteFunc(q.askers, func(a asker) bool {
		if a.address.IsUnspecified() {
			r.reply(u, target, a)
			return true
		}
		return false
	})
}

// settleQuestions answers those neighbours who asked for an address that was found, and that the kernel answers for by
// now: before, what they send to it would go astray.
func (r *Room) settleQuestions(now time.Time) {
	for _, u := range r.uplinks {
		for target, q := range u.questions.list {
			if q.network == nil || !r.answered[kernelProxy{target, u.listener.index}] {
				continue
			}
			for _, a := range q.askers {
				r.reply(u, target, a)
			}
			delete(u.questions.list, target)
		}
		u.questions.expire(now)
	}
}

// reply answers a neighbour in a guest's stead, as the kernel does (RFC 4861 7.2.4, 7.2.8).
func (r *Room) reply(u *uplink, target netip.Addr, to asker) {
	a := message.NeighborAdvertisement{From: u.address, To: to.address, Target: target, Solicited: true, MAC: u.mac, LinkLayer: u.mac}
	if a.From.IsUnspecified() {
		a.From = target
	}
	mac := to.mac
	if to.address.IsUnspecified() {
		a.To, a.Solicited = message.AllNodes, false
		mac = message.Multicast(message.AllNodes)
	}
	r.grumble(r.sendAll(u.listener.index, [][]byte{a.Frame(mac).Marshal()}))
}
