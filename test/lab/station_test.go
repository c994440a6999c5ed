package lab

import (
	"context"
	"net/netip"
	"testing"
	"time"
)

// TestStations has neighbours on the LAN, reached by a guest on the same link, and from the internet.
func TestStations(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	l := Start(t, oneSite(DefaultRA()))
	b := l.Site("b")
	bridged(t, l, "br0", "eth0")
	g := addGuest(t, l, "one", "br0", hasty)
	static, err := b.AddStation(ctx, "still", StationOptions{MachineOptions: hasty})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.AddStation(ctx, "still", StationOptions{}); err == nil {
		t.Error("a second station of the same name")
	}
	moving, err := b.AddStation(ctx, "moving", StationOptions{MachineOptions: hasty, DHCP: true})
	if err != nil {
		t.Fatal(err)
	}
	lease, err := moving.WaitLease(ctx, b.Options.IPv4)
	if err != nil {
		t.Fatal(err)
	}
	if want := b.RouterIPv4.Next(); static.IPv4 != want || lease.Router != b.RouterIPv4 {
		t.Errorf("the static station has %s, want %s; the other leased %+v", static.IPv4, want, lease)
	}
	here, _, err := static.WaitAddress6(ctx, b.Options.IPv6)
	if err != nil {
		t.Fatal(err)
	}
	mine, _, err := g.WaitAddress6(ctx, b.Options.IPv6)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from *Host
		to   netip.AddrPort
	}{{g.Host, static.Echo(here)}, {moving.Host, static.Echo(static.IPv4)}, {static.Host, EchoIPv4}, {static.Host, EchoIPv6}, {l.Internet.Host, static.Echo(here)}, {l.Internet.Host, static.Echo(static.IPv4)}} {
		if _, _, err := c.from.WaitReach(ctx, c.to); err != nil {
			t.Error(err)
		}
	}
	seen, _, err := g.WaitReach(ctx, static.Echo(here))
	if err != nil || seen.Seen.Addr() != mine || !containsPeer(static.Peers(), seen.Seen) {
		t.Errorf("the station sees the guest as %v, %v, want %v", seen.Seen, err, mine)
	}
	// A station of several addresses answers from the one that was asked.
	second := netip.PrefixFrom(b.Options.IPv6.Addr().Next().Next(), 64)
	if err := static.addAddress(GuestInterface, second); err != nil {
		t.Fatal(err)
	}
	for _, asked := range []netip.Addr{here, second.Addr()} {
		soon, cancel := context.WithTimeout(ctx, 10*time.Second)
		if _, _, err := g.WaitReach(soon, static.Echo(asked)); err != nil {
			t.Error(err)
		}
		cancel()
	}
	if _, err := g.ServeEcho(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := static.WaitReach(ctx, netip.AddrPortFrom(mine, EchoPort)); err != nil {
		t.Error(err)
	}
	pingStation(t, g, static, here)

	up, err := Throughput(ctx, g.Host, static.Host, here, 200*time.Millisecond)
	if err != nil || up < 1e7 || up > 1e12 {
		t.Errorf("%g bit/s to the station, %v", up, err)
	}
	down, err := Throughput(ctx, static.Host, g.Host, mine, 200*time.Millisecond)
	if err != nil || down < 1e7 {
		t.Errorf("%g bit/s from the station, %v", down, err)
	}
	t.Logf("%.2f and %.2f Gbit/s", up/1e9, down/1e9)
	if rate, err := Throughput(ctx, g.Host, static.Host, mine, time.Second); err == nil {
		t.Errorf("%g bit/s to an address that the station hasn't", rate)
	}
}

// pingStation measures an outage by ping, of its global and its link-local address.
func pingStation(t *testing.T, g *Guest, st *Station, address netip.Addr) {
	t.Helper()
	ctx := testContext(t)
	local, err := g.Scoped(LinkLocal(st.MAC), GuestInterface)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Ping(ctx, local); err != nil {
		t.Error(err)
	}
	p, err := g.ProbePing(ctx, address, ProbeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := p.WaitSuccess(ctx, time.Time{}); err != nil || s.Seen.Addr() != address {
		t.Fatalf("answered by %v, %v", s.Seen, err)
	}
	cut := time.Now()
	if err := st.Unplug(); err != nil {
		t.Fatal(err)
	}
	// As long as it takes to send some into the void.
	if err := poll(ctx, func() (bool, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.samples) > 5 && p.samples[len(p.samples)-5].Sent.After(cut), nil
	}); err != nil {
		t.Fatal(err)
	}
	mend := time.Now()
	if err := st.Plug(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.WaitSuccess(ctx, mend); err != nil {
		t.Fatal(err)
	}
	r := p.Finish()
	t.Log("ping:", r)
	if got := r.Blackout(cut); got < 40*time.Millisecond || r.LostAfter(cut) < 3 || r.Lost() > r.LostAfter(cut)+1 {
		t.Errorf("blackout of %v, %d lost, the line was cut for at least %v", got, r.LostAfter(cut), mend.Sub(cut))
	}
}
