package system_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"gangway/test/lab"
)

// TestMoves pulls the dock's cable, puts it back, roams, and goes offline: at each step
// packets, DNS, signals and properties tell the same.
func TestMoves(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{})
	g, l := w.guest("one", w.network)
	w.reachesBy(g.Host, "b")
	w.resolves(g.Host, "b")
	w.waitProperty(w.network, "LeaseCount", uint32(1))
	m := w.watch()

	// Unplug: the guest is on the other uplink while the host's primary connection is still the dead one.
	w.must(w.Site("b").Unplug())
	w.reachesBy(g.Host, "a")
	if primary, err := w.NM.Primary(w.ctx); err != nil || primary != "eth0" {
		t.Errorf("when the guest was back NetworkManager's primary connection was %q (%v), not the dead one's", primary, err)
	}
	w.resolves(g.Host, "a")
	w.must(w.NM.WaitPrimary(w.soon(), "wlan0"))
	w.waitProperty(root, "State", "online")
	w.waitUplink(w.network, "wlan0")
	w.switched(m, 1, "eth0", "wlan0")
	m.agrees()

	// Dock in: a flow of the guest's goes on from another source; a flow of the host's own is let be.
	flow, err := g.ProbeFlow(w.ctx, lab.EchoIPv4, lab.ProbeOptions{})
	w.must(err)
	host, err := w.Laptop.DialUDP(netip.AddrPort{}, lab.EchoIPv4)
	w.must(err)
	defer host.Close()
	_, err = host.Write(make([]byte, 8))
	w.must(err)
	hostPort := netip.MustParseAddrPort(host.LocalAddr().String())
	_, err = flow.WaitSuccess(w.soon(), time.Now())
	w.must(err)
	before := w.flowOf(hostPort)
	w.must(w.Site("b").Plug())
	w.must(w.NM.WaitPrimary(w.soon(), "eth0"))
	w.waitUplink(w.network, "eth0")
	w.reachesBy(g.Host, "b")
	_, err = flow.WaitSuccess(w.soon(), time.Now())
	w.must(err)
	r := flow.Finish()
	first, last := r.Samples[0], lastAnswered(r)
	if !w.Site("a").Options.IPv4.Contains(first.Seen.Addr()) || !w.Site("b").Options.IPv4.Contains(last.Seen.Addr()) {
		t.Errorf("the flow began as %s and ended as %s", first.Seen, last.Seen)
	}
	// Every 5 ms one: a gap of a retransmission's length would be forty.
	if r.Lost() > 20 {
		t.Errorf("docking in cost the running flow too much: %s", r)
	}
	if after := w.flowOf(hostPort); before == "" || after != before {
		t.Errorf("the host's own flow was %q and is %q", before, after)
	}
	w.resolves(g.Host, "b")
	w.switched(m, 2, "wlan0", "eth0")

	// Roam.
	_, err = w.NM.Cli(w.soon(), "device", "disconnect", "eth0")
	w.must(err)
	w.reachesBy(g.Host, "a")
	w.resolves(g.Host, "a")
	w.switched(m, 3, "eth0", "wlan0")
	m.agrees()

	// Offline: a connection is refused at once, names of guests resolve, and what stands survives.
	standing, err := g.DialTCP(w.ctx, lab.EchoIPv4)
	w.must(err)
	defer standing.Close()
	w.echoes(standing)
	w.must(w.Site("a").Unplug())
	w.waitProperty(root, "State", "offline")
	w.waitUplink(w.network, "")
	w.waitProperty(w.network, "IPv4State", "offline")
	w.refusedAtOnce(g)
	if a, err := g.Query(w.ctx, netip.AddrPortFrom(l.Router, 53), "gateway.default.internal", lab.TypeA); err != nil || !slices.Equal(a.Addrs, []netip.Addr{l.Router}) {
		t.Errorf("offline, the gateway's name is %+v (%v)", a, err)
	}
	_, err = standing.Write([]byte("said while offline\n"))
	w.must(err)
	w.switched(m, 4, "wlan0", "")
	m.agrees()

	// Back with the same address: the session goes on where it was.
	w.must(w.Site("a").Plug())
	w.reachesBy(g.Host, "a")
	w.switched(m, 5, "", "wlan0")
	w.hears(standing, "said while offline\n")
	w.echoes(standing)
	w.waitProperty(root, "State", "online")
	m.agrees()
	w.noSpoofed()
	if n := len(m.named("Network.Renumbered")); n != 0 {
		t.Errorf("%d renumberings", n)
	}
}

func lastAnswered(r lab.Result) lab.Sample {
	i := len(r.Samples) - 1
	for i > 0 && r.Samples[i].Lost() {
		i--
	}
	return r.Samples[i]
}

// switched waits for the n-th signal Switched, and checks that there is no other, and its fields.
func (w *world) switched(m *mirror, n int, from, to string) {
	w.t.Helper()
	all := m.await("Manager.Switched", n)
	if len(all) != n {
		w.t.Errorf("%d signals Switched, want %d: %v", len(all), n, all[n-1:])
	}
	path := func(ifname string) godbus.ObjectPath {
		if ifname == "" {
			return "/"
		}
		return uplinkPath(ifname)
	}
	s := all[n-1]
	report := s.Body[2].(map[string]godbus.Variant)
	detected, _ := report["detected"].Value().(uint64)
	done, _ := report["nat-done"].Value().(uint64)
	_, flushed := report["flows-flushed"].Value().(uint32)
	var now unix.Timespec
	w.must(unix.ClockGettime(unix.CLOCK_MONOTONIC, &now))
	limit := uint64(now.Nano() / 1000)
	if s.Body[0] != path(from) || s.Body[1] != path(to) || detected == 0 || done < detected || done > limit ||
		limit-detected > uint64(2*patience/time.Microsecond) || !flushed {
		w.t.Errorf("Switched is %v, want %s to %s; now is %d", s.Body, path(from), path(to), limit)
	}
}
