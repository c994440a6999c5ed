package ndp

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"gangway/service/ndp/message"
	"gangway/service/plan"
	"gangway/service/vnet"
)

var firstMAC, secondMAC = message.MAC{2, 0, 0, 0, 0, 1}, message.MAC{2, 0, 0, 0, 0, 2}

func probedNeighbours() neighbours {
	n := newNeighbours()
	n.probed = true
	return n
}

// Another's address is only had when he is gone.
func TestAnAddressInDispute(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	for _, answers := range []bool{true, false} {
		n := probedNeighbours()
		n.take(address(0), firstMAC, 1, now)
		n.probeBy(now.Add(probePause))
		if got := n.take(address(0), secondMAC, 2, now); got != disputed {
			t.Errorf("taken: %v", got)
		}
		asked := 0
		for i := range 8 {
			at := now.Add(time.Duration(i) * disputePause)
			ask, changed := n.silent(at, probePause)
			asked += len(ask)
			if answers && len(ask) > 0 && i == 1 {
				n.take(address(0), firstMAC, 1, at)
			}
			if i < probeMisses && (changed || n.list[address(0)].mac != firstMAC) {
				t.Errorf("%d: %+v", i, n.list[address(0)])
			}
		}
		g := n.list[address(0)]
		if answers && (asked != 2 || g.mac != firstMAC || g.rival != nil) || !answers && (asked != probeMisses || g.mac != secondMAC || g.port != 2 || n.counts[firstMAC] != 0) {
			t.Errorf("answers %v: asked %d times, %+v, %v", answers, asked, g, n.counts)
		}
	}
	// Whose guest it is isn't known again yet: who speaks first has it.
	n := probedNeighbours()
	n.list[address(0)] = neighbour{seen: now}
	n.counts[message.MAC{}]++
	if got := n.take(address(0), secondMAC, 2, now); got != fresh || n.counts[message.MAC{}] != 0 {
		t.Errorf("taken: %v, %v", got, n.counts)
	}
	// Of another network's dispute, nobody is the winner here.
	n.dispute(address(0), now)
	for i := range 8 {
		n.silent(now.Add(time.Duration(i)*disputePause), probePause)
	}
	if len(n.list) > 0 || len(n.counts) > 0 {
		t.Errorf("%+v", n)
	}
}

func TestSilentGuestsAreAskedAndForgotten(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	n := probedNeighbours()
	n.take(address(0), firstMAC, 1, now)
	n.probeBy(now.Add(probePause))
	n.take(address(1), firstMAC, 1, now.Add(time.Second))
	asked := map[netip.Addr][]time.Duration{}
	forgotten := time.Duration(0)
	for d := time.Duration(0); d < 10*time.Minute; d += time.Second {
		at := now.Add(d)
		if due := n.nextProbe; !due.IsZero() && due.Before(at) {
			t.Fatalf("%v is over at %v", due, at)
		}
		ask, changed := n.silent(at, probePause)
		for _, a := range ask {
			asked[a] = append(asked[a], d)
			if a == address(1) {
				n.take(a, firstMAC, 1, at)
			}
		}
		if changed {
			forgotten = d
		}
	}
	want := []time.Duration{time.Minute, 2 * time.Minute, 3 * time.Minute}
	if !slices.Equal(asked[address(0)], want) || forgotten != 4*time.Minute {
		t.Errorf("asked at %v, forgotten after %v", asked[address(0)], forgotten)
	}
	if _, known := n.list[address(1)]; !known || len(asked[address(1)]) != 9 {
		t.Errorf("one who answers was asked at %v", asked[address(1)])
	}
	// A machine that slept asks first.
	n = probedNeighbours()
	n.take(address(0), firstMAC, 1, now)
	n.probeBy(now.Add(probePause))
	n.sweep(now.Add(24 * time.Hour))
	if ask, changed := n.silent(now.Add(24*time.Hour), probePause); len(ask) != 1 || changed {
		t.Errorf("asked %v, forgotten %v", ask, changed)
	}
}

func TestLearnedAddressesAreBounded(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	n := probedNeighbours()
	for mac := range 40 {
		for i := range 100 {
			got := n.take(address(mac*100+i), message.MAC{2, 0, 0, 0, 1, byte(mac)}, 1, now)
			if want := i < maxAddresses && mac*maxAddresses+i < maxNeighbours; (got == fresh) != want {
				t.Fatalf("%d of %d: %v", i, mac, got)
			}
		}
	}
	if len(n.list) != maxNeighbours {
		t.Errorf("%d addresses", len(n.list))
	}
}

func TestQuestionsOfNeighboursAreBounded(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	q := questions{}
	who := asker{netip.MustParseAddr("2001:db8:a::1"), firstMAC}
	asked := func(from, to int) (n int) {
		for i := from; i < to; i++ {
			if q.ask(address(i), who, now) {
				n++
			}
		}
		return n
	}
	if n := asked(0, 1000); n != askBurst || len(q.list) != askBurst {
		t.Errorf("asked %d at once, %d open", n, len(q.list))
	}
	now = now.Add(10*askPause + askPause/2)
	if n := asked(0, askBurst); n != 0 {
		t.Errorf("asked %d again within a second", n)
	}
	if n := asked(1000, 2000); n != 10 {
		t.Errorf("asked %d more", n)
	}
	for range 10 {
		now = now.Add(askAgain)
		asked(5000, 6000)
		q.rate = allowance{}
		asked(7000, 7300)
	}
	if len(q.list) > maxQuestions {
		t.Errorf("%d open", len(q.list))
	}
	now = now.Add(questionTime)
	if q.expire(now); len(q.list) > 0 {
		t.Errorf("%d open for ever", len(q.list))
	}
	for i := range 10 {
		q.ask(address(0), asker{address(i), firstMAC}, now)
	}
	if n := len(q.list[address(0)].askers); n != maxAskers {
		t.Errorf("%d askers", n)
	}
	if now = now.Add(askAgain); !q.ask(address(0), who, now) || q.ask(address(0), who, now) {
		t.Error("not asked again after a second, or twice")
	}
}

// Which guests are shown depends on what the bridge does.
func TestWhichNeighboursAreShown(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	host := netip.MustParseAddr("2001:db8:a::100")
	m.n.served.host = map[netip.Addr]bool{host: true}
	learned := func() {
		m.n.neighbours = newNeighbours()
		for _, a := range []string{"2001:db8:a::2", "2001:db8:a::1", "2001:db8:a::100", "2001:db8:b::1", "fe80::1", "2001:db8:a:2::1"} {
			m.n.neighbours.take(netip.MustParseAddr(a), firstMAC, 1, m.now)
		}
	}
	learned()
	want := func(texts ...string) {
		t.Helper()
		var got []string
		for _, g := range m.room.shownNeighbours(m.n) {
			if g.MAC != firstMAC.String() {
				t.Errorf("%+v", g)
			}
			got = append(got, g.Address.String())
		}
		if !slices.Equal(got, texts) {
			t.Errorf("shown %v, want %v", got, texts)
		}
	}
	want() // nothing is known of the uplink, and nothing was taught
	m.teach(prefixA)
	want("2001:db8:a::1", "2001:db8:a::2")
	link := pio(prefixA2, 3600)
	link[3] = 0x80
	m.say(routerA, macA, 1800, pio(prefixB, 3600), link)
	want("2001:db8:b::1")
	m.n.served.spec = plan.ServeSpec{Prefixes: prefixes(prefixA2)}
	want("2001:db8:a:2::1")
	all := []string{"2001:db8:a::1", "2001:db8:a::2", "2001:db8:a::100", "2001:db8:a:2::1", "2001:db8:b::1"}
	m.n.served.spec.OnLink = true
	want(all...)
	m.n.served = nil
	want(all...)
}

func TestGuestsOfAnEarlierLife(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	m.n.index = 7
	route := func(dst string, link int, protocol uint8) vnet.Route {
		return vnet.Route{Dst: netip.MustParsePrefix(dst), Link: link, Protocol: protocol}
	}
	m.room.kernel.Routes6 = []vnet.Route{route("2001:db8:a::1/128", 7, plan.Protocol), route("2001:db8:a::2/128", 8, plan.Protocol),
		route("2001:db8:a::3/128", 7, 3), route("2001:db8:a::/64", 7, plan.Protocol), route("10.0.0.1/32", 7, plan.Protocol)}
	m.room.recover(m.n, m.now)
	if len(m.n.neighbours.list) != 1 || m.n.neighbours.list[netip.MustParseAddr("2001:db8:a::1")].mac != (message.MAC{}) {
		t.Errorf("%+v", m.n.neighbours.list)
	}
	m.n.neighbours = newNeighbours()
	if m.room.recover(m.n, m.now); len(m.n.neighbours.list) > 0 {
		t.Error("found again, again")
	}
}

// A guest whose port is gone is looked for behind the others, and found there or soon forgotten.
func TestAGuestWhosePortIsGone(t *testing.T) {
	t.Parallel()
	guest := message.MAC{2, 0, 0, 0, 0, 1}
	begin := func() (*neighbours, time.Time) {
		n, now := newNeighbours(), time.Unix(1000, 0)
		n.doubt(now)
		n.take(address(0), guest, 1, now)
		n.leave(1, now)
		if ask, changed := n.silent(now, probePause); len(ask) != 1 || changed {
			t.Fatalf("asked at once: %v, changed %v", ask, changed)
		}
		return &n, now
	}
	n, now := begin()
	if got := n.take(address(0), guest, 2, now.Add(time.Second)); got != same || n.list[address(0)].port != 2 || n.list[address(0)].rival != nil {
		t.Errorf("back behind another port: %v, %+v", got, n.list)
	}
	n, now = begin()
	for range probeMisses {
		now = now.Add(disputePause)
		n.silent(now, probePause)
	}
	if len(n.list) != 0 || len(n.counts) != 0 {
		t.Errorf("gone for good: %+v", n.list)
	}
}
