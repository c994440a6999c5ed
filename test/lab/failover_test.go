package lab

import (
	"net/netip"
	"testing"
	"time"
)

// TestFailover is the laptop without Gangway, so that its figures can be compared: NetworkManager keeps an
// uplink for six seconds after its carrier went.
func TestFailover(t *testing.T) {
	t.Parallel()
	l := Start(t, Options{NoPolkit: true})
	ctx := testContext(t)
	for _, s := range l.Sites {
		if _, _, err := s.WaitUplink(ctx); err != nil {
			t.Fatal(err)
		}
	}
	fresh, err := l.Laptop.ProbeSockets(ctx, EchoIPv4, ProbeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.WaitSuccess(ctx, time.Time{}); err != nil {
		t.Fatal(err)
	}
	cut := time.Now()
	if err := l.Site("b").Unplug(); err != nil {
		t.Fatal(err)
	}
	if err := l.NM.WaitPrimary(ctx, "wlan0"); err != nil {
		t.Fatal(err)
	}
	t.Log("NetworkManager's primary moved after", time.Since(cut))
	moved := time.Now()
	if _, err := fresh.WaitSuccess(ctx, moved); err != nil {
		t.Fatal(err)
	}
	if err := l.Site("b").Plug(); err != nil {
		t.Fatal(err)
	}
	if err := l.NM.WaitPrimary(ctx, "eth0"); err != nil {
		t.Fatal(err)
	}
	r := fresh.Finish()
	t.Log(r)
	first, _ := r.FirstSuccess(time.Time{})
	after, ok := r.FirstSuccess(moved)
	if !ok || !l.Site("b").Options.IPv4.Contains(first.Seen.Addr()) || !l.Site("a").Options.IPv4.Contains(after.Seen.Addr()) {
		t.Errorf("the internet saw %v first and %v after the unplug", first.Seen, after.Seen)
	}
	if got := r.Blackout(cut); got < time.Second || got > 60*time.Second {
		t.Errorf("blackout of %v, want NetworkManager's six seconds or so", got)
	}
	if r.LostAfter(cut) == 0 || r.Lost() != r.LostAfter(cut) {
		t.Errorf("%d packets lost in all, %d after the unplug", r.Lost(), r.LostAfter(cut))
	}
}

func TestTwoLabsSideBySide(t *testing.T) {
	t.Parallel()
	one := Start(t, Options{NoPolkit: true})
	two := Start(t, Options{NoPolkit: true})
	ctx := testContext(t)
	if one.Prefix() == two.Prefix() {
		t.Fatal("both labs are", one.Prefix())
	}
	for _, l := range []*Lab{one, two} {
		if _, err := l.Laptop.Reach(ctx, EchoIPv4); err != nil {
			t.Error(err)
		}
		if n := len(l.Internet.Peers()); n != 1 {
			t.Errorf("internet of lab %s saw %d peers, want its own laptop", l.Prefix(), n)
		}
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	assertNothingLeft(t, one.Prefix())
	if _, err := two.Laptop.Reach(ctx, EchoIPv4); err != nil {
		t.Error("closing one lab broke the other:", err)
	}
	if got, err := two.NM.Primary(ctx); err != nil || got != "eth0" {
		t.Errorf("closing one lab changed the other's primary to %q, %v", got, err)
	}
}

// TestClashingSite puts site b into the guests' subnet and gives its router the bridge's address.
func TestClashingSite(t *testing.T) {
	t.Parallel()
	sites := DefaultSites()
	sites[1].IPv4 = netip.MustParsePrefix("192.168.231.0/24")
	sites[1].RouterIPv4 = netip.MustParseAddr("192.168.231.254")
	l := Start(t, Options{NoPolkit: true, Sites: sites})
	ctx := testContext(t)
	v4, _, err := l.Site("b").WaitUplink(ctx)
	if err != nil || v4 == sites[1].RouterIPv4 {
		t.Fatal(v4, err)
	}
	if _, err := l.Laptop.Reach(ctx, EchoIPv4); err != nil {
		t.Error(err)
	}
}
