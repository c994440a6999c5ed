package system_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gangway/test/lab"
)

// silent is a guest with a static address and router, which has never said a word of them.
func (w *world) silent(name string, a netip.Addr) *lab.Guest {
	w.t.Helper()
	g, err := w.AddGuestWith(w.ctx, name, lab.MachineOptions{Sysctl: map[string]string{"net.ipv6.conf.eth0.accept_ra": "0"}})
	w.must(err)
	w.call(w.network, "Network.Attach", g.Port, options{})
	w.must(g.WaitUp(w.soon()))
	_, err = g.WaitIPv6(w.soon(), linkLAN)
	w.must(err)
	_, err = g.Run(w.ctx, "ip", "addr", "add", a.String()+"/128", "dev", lab.GuestInterface, "nodad")
	w.must(err)
	_, err = g.Run(w.ctx, "ip", "-6", "route", "add", "default", "via", w.self().String(), "dev", lab.GuestInterface)
	w.must(err)
	return g
}

// answered pings until the first answer, and returns how long that took.
func (w *world) answered(from *lab.Host, to netip.Addr) time.Duration {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	begun := time.Now()
	p, err := from.ProbePing(ctx, to, lab.ProbeOptions{Interval: 50 * time.Millisecond, Timeout: 2 * time.Second})
	w.must(err)
	s, err := p.WaitSuccess(w.soon(), time.Time{})
	w.must(err)
	return s.Sent.Add(s.RTT).Sub(begun)
}

// A guest that never said a word is found when the link asks for it; a link that is searched for hosts troubles nobody.
func TestProxiedOnDemand(t *testing.T) {
	t.Parallel()
	w := onWiFi(t, lab.Options{})
	st, _ := w.station("a", "lan", prefixA, lab.MachineOptions{})
	far, _ := w.station("a", "far", prefixA, lab.MachineOptions{})
	g, addr := w.guestWith("vm1", "default", prefixA, lab.MachineOptions{})
	w.known(addr)
	first := nth6(prefixA, 0x51)
	w.silent("vm2", first)
	if out := w.run("ip", "-6", "neigh", "show", "proxy", first.String()); out != "" {
		t.Fatalf("the silent guest is known already: %s", out)
	}
	t.Logf("a silent guest is reached after %v", w.answered(st.Host, first))
	w.known(first)

	// 2000 addresses in a moment, while others go on.
	second := nth6(prefixA, 0x52)
	w.silent("vm3", second)
	heard, err := g.Capture(w.ctx, lab.GuestInterface)
	w.must(err)
	scanned := func(a netip.Addr) bool {
		return nth6(prefixA, 0x1000).Compare(a) <= 0 && a.Compare(nth6(prefixA, 0x17d0)) < 0
	}
	inward, err := st.ProbePing(w.ctx, addr, lab.ProbeOptions{Interval: 10 * time.Millisecond})
	w.must(err)
	_, err = inward.WaitSuccess(w.soon(), time.Now())
	w.must(err)
	var frames [][]byte
	from := lab.LinkLocal(far.MAC)
	for i := range uint16(2000) {
		a := nth6(prefixA, 0x1000+i)
		group := lab.SolicitedNode(a)
		frames = append(frames, lab.Ethernet(lab.MulticastMAC(group), far.MAC, lab.EtherIPv6, lab.NeighborMessage(from, group, lab.NeighborSolicitation, 0, a, far.MAC)))
	}
	begun := time.Now()
	w.must(far.Send(frames...))
	sent := time.Since(begun)
	w.text(w.network, "IPv6State") // it answers
	replied := time.Since(begun)
	w.must(waitSeen(w, g, prefixA))
	found := w.answered(st.Host, second)
	_, err = inward.WaitSuccess(w.soon(), time.Now())
	w.must(err)
	result := inward.Finish()
	asked := heard.Count(lab.Incoming, lab.IsNS, func(f lab.Frame) bool { n, ok := f.Neighbor(); return ok && scanned(n.Target) })
	t.Logf("scanned in %v: the daemon replied after %v, a silent guest was reached after %v; the guest heard %d questions; a ping meanwhile: %s", sent, replied, found, asked, result)
	if limit := 150 + int(100*time.Since(begun).Seconds()); asked > limit {
		t.Errorf("the guest heard %d of 2000 questions of a scan, want %d at most", asked, limit)
	}
	if lost := result.Lost(); lost > len(result.Samples)/10 {
		t.Errorf("a ping to a guest during a scan lost %d of %d", lost, len(result.Samples))
	}
	for _, line := range lines(w.run("sh", "-c", "ip -6 neigh show proxy; ip -6 route show proto 147")) {
		a, err := netip.ParseAddr(strings.Fields(line)[0])
		if err == nil && scanned(a) {
			t.Errorf("what was asked for is answered for, and nobody has it: %s", line)
		}
	}
	w.noViolations("a")
}
