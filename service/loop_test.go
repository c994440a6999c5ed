package service_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gangway/service/plan"
	"gangway/service/servicetest"
	"gangway/service/vnet"
)

// After a failure passes are tried again, ever more rarely but never given up.
func TestRetryBacksOff(t *testing.T) {
	run(t, func(b *bench) {
		b.create("lab", nil)
		var tries []time.Time
		b.m.Fail(func(_ int, op plan.Op) bool {
			if isOp[plan.StartServer](0, op) {
				tries = append(tries, time.Now())
				return true
			}
			return false
		})
		b.m.StopServer("lab")
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := b.network("lab"); n.State != vnet.Degraded || !strings.Contains(n.Reason, "start DNS and DHCP of lab") {
			t.Errorf("published %s, %q", n.State, n.Reason)
		}
		longest := time.Duration(0)
		for i := 1; i < len(tries); i++ {
			gap := tries[i].Sub(tries[i-1])
			if gap < longest || gap > 30*time.Second {
				t.Errorf("try %d came after %s, the longest before is %s", i, gap, longest)
			}
			longest = max(longest, gap)
		}
		if len(tries) < 20 || tries[1].Sub(tries[0]) > time.Second || longest != 30*time.Second {
			t.Errorf("%d tries, the second after %s, the longest wait %s", len(tries), tries[1].Sub(tries[0]), longest)
		}
		b.m.Fail(nil)
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if n := b.network("lab"); n.State != vnet.Active || n.Reason != "" {
			t.Errorf("published %s, %q after the cause was gone", n.State, n.Reason)
		}
	})
}

func TestPokesCoalesce(t *testing.T) {
	run(t, func(b *bench) {
		b.create("lab", nil)
		time.Sleep(2 * time.Second)
		b.m.SetOpTime(100 * time.Millisecond)
		b.m.StopServer("lab")
		time.Sleep(50 * time.Millisecond) // the pass that starts it again is under way
		synctest.Wait()
		before := b.m.Observes()
		for range 1000 {
			b.svc.Poke("burst")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := b.m.Observes() - before; n < 1 || n > 2 {
			t.Errorf("a burst of pokes during a pass was followed by %d more observations", n)
		}
		b.m.SetOpTime(0)
		before = b.m.Observes()
		for range 5000 { // five seconds of a restless machine
			b.svc.Poke("restless")
			time.Sleep(time.Millisecond)
		}
		b.settle()
		// A pass looks twice when something changes between its first look and its plan.
		if n := b.m.Observes() - before; n < 20 || n > 2*6*41 {
			t.Errorf("five restless seconds made %d observations", n)
		}
	})
}

// A change that happens during a pass is seen by the next.
func TestPokeDuringPass(t *testing.T) {
	run(t, func(b *bench) {
		b.create("lab", nil)
		b.m.Plug(wlan0)
		b.settle()
		b.m.SetOpTime(20 * time.Millisecond)
		b.m.SetCarrier("eth0", false)
		time.Sleep(30 * time.Millisecond)
		b.m.SetCarrier("eth0", true) // while the switch to wlan0 is under way
		time.Sleep(2 * time.Second)
		if n := b.network("lab"); n.Uplink != "eth0" {
			t.Errorf("uplink %q", n.Uplink)
		}
	})
}

// What no watcher saw is mended within five minutes, what a reading announces in its time.
func TestResyncAndRecheck(t *testing.T) {
	run(t, func(b *bench) {
		b.create("lab", nil)
		b.m.Log()
		b.m.Unseen(func() { b.m.FlushChains() })
		time.Sleep(5*time.Minute + time.Second)
		if log := b.m.Log(); !slices.Equal(log, []string{"install firewall chains"}) {
			t.Errorf("operations %q", log)
		}
		b.m.SetHost(servicetest.HostDNS{Recheck: 300 * time.Millisecond})
		b.settle()
		before := b.m.Observes()
		time.Sleep(200 * time.Millisecond)
		b.m.Unseen(func() { b.m.SetHost(servicetest.HostDNS{}) })
		time.Sleep(time.Second)
		if n := b.m.Observes() - before; n != 1 {
			t.Errorf("%d passes in a second after an announced change, want 1", n)
		}
	})
}

func TestShutdownLeavesNothing(t *testing.T) {
	run(t, func(b *bench) {
		b.m.AddVeth("veth0")
		before := b.m.Text()
		b.create("lab", nil)
		b.create("other", map[string]any{"ipv4-method": "routed", "uplink": "wlan0"})
		b.m.Plug(wlan0)
		b.m.SetSysctl("net/ipv4/conf/wlan0/rp_filter", "1")
		b.must(b.svc.Attach(ctx, "lab", "veth0", nil, 5))
		b.settle()
		b.must(b.svc.Shutdown(ctx))
		if left := b.m.Left(); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		if got := b.m.Sysctl("net/ipv4/conf/wlan0/rp_filter"); got != "1" {
			t.Errorf("rp_filter of wlan0 is %s", got)
		}
		if b.svc.Active() {
			t.Error("it still says that it is active")
		}
		b.m.Poke("anything")
		b.settle()
		b.m.Unplug("wlan0")
		b.settle()
		b.wantMachine(before)
		b.restart()
		if n := b.network("lab"); n.State != vnet.Active || len(n.Ports) != 1 || n.Ports[0].Owner != 5 || !b.svc.Active() {
			t.Errorf("after the next start: %+v", n)
		}
	})
}

// The end of Run alone leaves guests as they are, for the next process.
func TestRunLeavesTheMachine(t *testing.T) {
	run(t, func(b *bench) {
		b.create("lab", nil)
		before := b.m.Text()
		b.end()
		b.wantMachine(before)
		b.m.Log()
		b.begin()
		b.wantMachine(before)
		for _, op := range b.m.Log() {
			if !strings.HasPrefix(op, "flush stale flows") {
				t.Errorf("a new process did: %s", op)
			}
		}
	})
}

func TestSubscribe(t *testing.T) {
	run(t, func(b *bench) {
		b.create("lab", nil)
		var seen []vnet.NetworkStatus
		var last *vnet.Snapshot
		cancel := b.svc.Subscribe(func(s *vnet.Snapshot, _ []vnet.Event) {
			if n, ok := s.Network("lab"); ok {
				seen = append(seen, n.State)
			}
			last = s
		})
		if len(seen) != 1 || last != b.svc.Snapshot() {
			t.Fatalf("the current snapshot was not handed over at once: %v", seen)
		}
		b.must(b.svc.StopNetwork(ctx, "lab"))
		if last != b.svc.Snapshot() || seen[len(seen)-1] != vnet.Inactive {
			t.Errorf("after the reply the subscriber has %v", seen)
		}
		count := len(seen)
		b.must(b.svc.StopNetwork(ctx, "lab"))
		if len(seen) != count {
			t.Error("a snapshot came without a change")
		}
		cancel()
		b.must(b.svc.StartNetwork(ctx, "lab"))
		if len(seen) != count {
			t.Error("a snapshot came after cancel")
		}
	})
}

// Snapshots never change after they were published, and each differs from the one before.
func TestSnapshotsAreImmutable(t *testing.T) {
	run(t, func(b *bench) {
		texts := map[*vnet.Snapshot]string{}
		cancel := b.svc.Subscribe(func(s *vnet.Snapshot, _ []vnet.Event) { texts[s] = fmt.Sprintf("%+v", *s) })
		defer cancel()
		b.m.AddVeth("veth0")
		b.create("lab", map[string]any{"dhcp-hosts": []map[string]any{{"mac": "52:54:00:00:00:01", "hostname": "a"}}})
		b.must(b.svc.Attach(ctx, "lab", "veth0", nil, 0))
		b.m.Plug(clashing(b.network("lab").Subnet))
		b.settle()
		b.must(b.svc.UpdateNetwork(ctx, "lab", map[string]any{"dhcp-hosts": []map[string]any{}}))
		b.must(b.svc.DeleteNetwork(ctx, "lab"))
		for s, text := range texts {
			if now := fmt.Sprintf("%+v", *s); now != text {
				t.Errorf("was %s\nis %s", text, now)
			}
		}
		if len(texts) < 5 {
			t.Errorf("%d snapshots", len(texts))
		}
	})
}

func TestWatcherIsStartedAgain(t *testing.T) {
	run(t, func(b *bench) {
		b.create("lab", nil)
		b.m.Log()
		for range 4 {
			b.m.EndWatch(errors.New("netlink socket overran"))
		}
		synctest.Wait()
		b.m.FlushChains() // nobody watches
		time.Sleep(time.Second)
		if log := b.m.Log(); !slices.Equal(log, []string{"install firewall chains"}) {
			t.Errorf("operations %q", log)
		}
		b.m.FlushChains() // they watch again
		b.settle()
		if log := b.m.Log(); !slices.Equal(log, []string{"install firewall chains"}) {
			t.Errorf("operations %q", log)
		}
	})
}

// One that can't watch at all isn't started all the time.
func TestWatcherBacksOff(t *testing.T) {
	run(t, func(b *bench) {
		ended := 0
		for end := time.Now().Add(10 * time.Minute); time.Now().Before(end); {
			b.m.EndWatch(errors.New("no permission")) // waits for one that watches
			ended++
		}
		if most := 6 * (10*60/30 + 10); ended < 6*10 || ended > most {
			t.Errorf("six watchers ended %d times in ten minutes, want 60 to %d", ended, most)
		}
	})
}

func TestObserveFails(t *testing.T) {
	for name, room := range map[string]plan.Room{"kernel": plan.LinkRoom, "firewall": plan.FirewallRoom, "servers": plan.ServerRoom} {
		t.Run(name, func(t *testing.T) {
			run(t, func(b *bench) {
				b.create("lab", nil)
				before := b.m.Text()
				b.m.FailObserve(room, errors.New("no answer"))
				err := b.svc.CreateNetwork(ctx, "other", nil)
				b.wantKind(err, vnet.Failed)
				if err == nil || !strings.Contains(err.Error(), "no answer") {
					t.Errorf("error %v", err)
				}
				b.wantMachine(before)
				b.m.FailObserve(room, nil)
				time.Sleep(time.Second)
				b.create("other", nil)
			})
		})
	}
}

// Callers may give up waiting; the command is carried out nevertheless.
func TestCallerGivesUp(t *testing.T) {
	run(t, func(b *bench) {
		b.m.SetOpTime(time.Second)
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		if err := b.svc.CreateNetwork(short, "lab", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		time.Sleep(time.Minute)
		if n := b.network("lab"); n.State != vnet.Active {
			t.Errorf("published %+v", n)
		}
	})
}

func TestCommandsFromManyCallers(t *testing.T) {
	run(t, func(b *bench) {
		var failed atomic.Int32
		done := make(chan struct{})
		for i := range 20 {
			go func() {
				defer func() { done <- struct{}{} }()
				name := fmt.Sprint("n", i%10)
				if err := b.svc.CreateNetwork(ctx, name, nil); err != nil {
					failed.Add(1)
				}
				_ = b.svc.Snapshot()
				b.svc.Poke("caller")
				_, _ = b.svc.Ports(ctx, name)
			}()
		}
		for range 20 {
			<-done
		}
		if n := len(b.svc.Snapshot().Networks); n != 10 || failed.Load() != 10 {
			t.Errorf("%d networks, %d failures, want 10 of each", n, failed.Load())
		}
		bridges := map[string]bool{}
		for _, n := range b.svc.Snapshot().Networks {
			bridges[n.Bridge] = true
			if n.State != vnet.Active {
				t.Errorf("%s is %s: %s", n.Name, n.State, n.Reason)
			}
		}
		if len(bridges) != 10 {
			t.Errorf("bridges %v", bridges)
		}
	})
}

func TestPrimeChangesNothing(t *testing.T) {
	run(t, func(b *bench) {
		b.create("lab", nil)
		b.must(b.svc.Shutdown(ctx))
		b.end()
		before := b.m.Text()
		b.must(b.load())
		ops, err := b.svc.Prime(ctx)
		b.must(err)
		b.wantMachine(before)
		if n := b.network("lab"); n.State != vnet.Starting || len(ops) < 10 {
			t.Errorf("published %s, %d operations", n.State, len(ops))
		}
	})
}

// A network that can't be removed isn't deleted.
func TestDeleteFails(t *testing.T) {
	run(t, func(b *bench) {
		b.create("lab", nil)
		before := b.m.Text()
		b.m.Fail(isOp[plan.DeleteBridge])
		b.wantKind(b.svc.DeleteNetwork(ctx, "lab"), vnet.Failed)
		b.wantMachine(before)
		if n := b.network("lab"); n.State != vnet.Active {
			t.Errorf("published %+v", n)
		}
		b.m.Fail(nil)
		b.must(b.svc.DeleteNetwork(ctx, "lab"))
		if left := b.m.Left(); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

func TestShutdownSaysWhatFailed(t *testing.T) {
	run(t, func(b *bench) {
		b.create("lab", nil)
		b.m.Fail(isOp[plan.DeleteBridge])
		if err := b.svc.Shutdown(ctx); err == nil || !strings.Contains(err.Error(), "delete bridge gway0") {
			t.Errorf("error %v", err)
		}
		b.m.Fail(nil)
		b.must(b.svc.Shutdown(ctx))
		if left := b.m.Left(); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}
