package firewall

import (
	"context"
	"testing"
	"time"

	"gangway/service/plan"
)

// watching runs Watch in the namespace until the test ends; what it pokes comes by the channel.
func watching(t *testing.T, host *namespace, f *Firewall) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	pokes, done := make(chan string, 1000), make(chan struct{})
	go func() {
		defer close(done)
		host.do(func() { f.Watch(ctx, func(reason string) { pokes <- reason }) })
	}()
	t.Cleanup(func() { cancel(); <-done })
	return pokes
}

func awaitPoke(t *testing.T, pokes <-chan string) {
	t.Helper()
	select {
	case <-pokes:
	case <-time.After(patience):
		t.Fatal("no poke")
	}
}

func TestWatch(t *testing.T) {
	d := newDock(t, "iptables-nft")
	host, f := d.host, d.firewall
	pokes := watching(t, host, f)
	awaitPoke(t, pokes) // nothing was looked at before

	// What Apply does itself is no news, nor are sets.
	apply(t, f, plan.InstallChains{}, add(plan.SetOut, "10.0.0.0/24,eth0"))
	for round := range 5 {
		host.run("iptables-nft", "-F")
		awaitPoke(t, pokes)
		if observe(t, f).Chains {
			t.Fatalf("round %d: the flush wasn't seen", round)
		}
		apply(t, f, plan.InstallChains{}, plan.SetGuard{Spec: guardSpec()}, plan.DeleteGuard{Network: "default"})
		if !observe(t, f).Chains {
			t.Fatalf("round %d: the flush wasn't mended", round)
		}
		select {
		case <-pokes:
			t.Fatalf("round %d: a poke for what Apply did itself", round)
		case <-time.After(50 * time.Millisecond):
		}
	}
	host.run("nft", "add", "table", "inet", "others")
	awaitPoke(t, pokes)
}

// More changes than the socket's buffer holds: the subscription is renewed, and still works.
func TestWatchOverrun(t *testing.T) {
	host := newNamespace(t, "host")
	host.enter()
	f := newFirewall(t, "iptables-nft")
	apply(t, f, plan.InstallChains{})
	pokes := watching(t, host, f)
	host.run("iptables-nft", "-N", "OTHERS")
	awaitPoke(t, pokes) // it has subscribed

	f.mu.Lock() // Watch has to wait with its first message, as for an Apply that takes long
	host.sh(`for i in $(seq 20); do
		(echo '*filter'; seq 1000 | sed 's/.*/-A OTHERS -s 10.0.0.& -m comment --comment "to make it long enough" -j ACCEPT/; s/10.0.0.[0-9]*/10.0.0.1/'; echo COMMIT) |
		iptables-nft-restore --noflush
	done; iptables-nft -F INPUT`)
	f.mu.Unlock()
	awaitPoke(t, pokes)
	for observe(t, f).Chains {
		awaitPoke(t, pokes)
	}
	apply(t, f, plan.InstallChains{})
	for len(pokes) > 0 {
		<-pokes
	}
	host.run("iptables-nft", "-F", "FORWARD")
	awaitPoke(t, pokes)
}

// With the legacy backend its rules' changes aren't heard of, those of guards are.
func TestWatchLegacy(t *testing.T) {
	d := newDock(t, "iptables-legacy")
	apply(t, d.firewall, plan.InstallChains{})
	observe(t, d.firewall)
	pokes := watching(t, d.host, d.firewall)
	d.host.run("iptables-legacy", "-F")
	apply(t, d.firewall, plan.InstallChains{}, plan.SetGuard{Spec: guardSpec()}) // one's own are no news
	select {
	case <-pokes:
		t.Error("a poke from nobody")
	case <-time.After(50 * time.Millisecond):
	}
	d.host.run("nft", "flush", "ruleset")
	awaitPoke(t, pokes)
}
