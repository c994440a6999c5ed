package service_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"gangway/service/plan"
	"gangway/service/servicetest"
	"gangway/service/vnet"
)

// switches returns the Switched events among events.
func switches(events []vnet.Event) []vnet.Switch {
	var list []vnet.Switch
	for _, e := range events {
		if e.Switched != nil {
			list = append(list, *e.Switched)
		}
	}
	return list
}

func TestSwitchedOncePerMove(t *testing.T) {
	run(t, func(b *bench) {
		b.create("lab", nil)
		b.m.Plug(wlan0)
		b.settle()
		if events := switches(b.takeEvents()); len(events) > 0 {
			t.Errorf("there was no move: %+v", events)
		}
		b.m.AddFlow(vnet.Flow{Protocol: 6, Source: b.network("lab").Subnet.Addr().Next().Next(), Destination: ip("203.0.113.9"), Translated: ip("10.1.0.5")})
		b.m.SetOpTime(time.Millisecond)
		poked := time.Hour // the monotonic clock begins there with the process
		begun := time.Now()
		moves := []struct {
			do       func()
			from, to string
			flows    uint32
		}{
			{func() { b.m.SetCarrier("eth0", false) }, "eth0", "wlan0", 1},
			{func() { b.m.Disconnect("eth0") }, "", "", 0}, // the host follows: nothing moves for guests
			{func() { b.m.Plug(eth0) }, "wlan0", "eth0", 0},
			{func() { b.m.Unplug("wlan0") }, "", "", 0},
			{func() { b.m.Unplug("eth0") }, "eth0", "", 0},
			{func() { b.m.Plug(wlan0) }, "", "wlan0", 0},
		}
		for i, move := range moves {
			at := poked + time.Since(begun) + 50*time.Millisecond // settled once above
			move.do()
			b.settle()
			got := switches(b.takeEvents())
			if move.from == move.to {
				if len(got) > 0 {
					t.Errorf("move %d: %+v", i, got)
				}
				continue
			}
			if len(got) != 1 || got[0].From != move.from || got[0].To != move.to || got[0].FlowsFlushed != move.flows {
				t.Fatalf("move %d: %+v, want one from %q to %q", i, got, move.from, move.to)
			}
			if s := got[0]; s.Detected != at || s.NATDone < s.Detected || s.NATDone > at+50*time.Millisecond || move.to != "" && s.NATDone == s.Detected {
				t.Errorf("move %d: detected %s, done %s, happened at %s", i, s.Detected, s.NATDone, at)
			}
		}
	})
}

func TestHostStateOverASwitch(t *testing.T) {
	run(t, func(b *bench) {
		b.m.Plug(wlan0)
		b.settle()
		for _, s := range []struct {
			do      func()
			state   vnet.HostStatus
			primary string
		}{
			{func() {}, vnet.Online, "eth0"},
			{func() { b.m.SetCarrier("eth0", false) }, vnet.Switching, "eth0"}, // guests left before the host
			{func() { b.m.Disconnect("eth0") }, vnet.Online, "wlan0"},
			{func() { b.m.SetCarrier("wlan0", false) }, vnet.Offline, "wlan0"},
			{func() { b.m.Unplug("wlan0") }, vnet.Offline, ""},
		} {
			s.do()
			b.settle()
			if got := b.svc.Snapshot(); got.State != s.state || got.Primary != s.primary {
				t.Errorf("state %s, primary %q, want %s, %q", got.State, got.Primary, s.state, s.primary)
			}
		}
	})
}

func TestLeaseAndPortEvents(t *testing.T) {
	run(t, func(b *bench) {
		b.m.AddVeth("veth0")
		b.create("lab", nil)
		subnet := b.network("lab").Subnet
		lease := vnet.Lease{MAC: "52:54:00:00:00:01", Address: subnet.Addr().Next().Next(), Hostname: "a", Expires: time.Unix(1e9, 0)}
		renewed := lease
		renewed.Expires = time.Unix(2e9, 0)
		foreign := lease
		foreign.Address = ip("192.168.1.7") // of a subnet of before
		steps := []struct {
			name string
			do   func()
			want []string
		}{
			{"lease", func() { b.m.SetLeases("lab", lease) }, []string{"lab lease + " + lease.Address.String()}},
			{"renewed", func() { b.m.SetLeases("lab", renewed) }, nil},
			{"one of another subnet", func() { b.m.SetLeases("lab", renewed, foreign) }, nil},
			{"released", func() { b.m.SetLeases("lab") }, []string{"lab lease - " + lease.Address.String()}},
			{"attached", func() { b.must(b.svc.Attach(ctx, "lab", "veth0", nil, 7)) }, []string{"lab port + veth0 7"}},
			{"vanished", func() { b.m.RemoveLink("veth0") }, []string{"lab port - veth0 7"}},
		}
		b.takeEvents()
		for _, s := range steps {
			s.do()
			b.settle()
			if got := eventTexts(b.takeEvents()); !slices.Equal(got, s.want) {
				t.Errorf("%s: %q, want %q", s.name, got, s.want)
			}
		}
	})
}

func eventTexts(events []vnet.Event) []string {
	var list []string
	for _, e := range events {
		switch {
		case e.Switched != nil:
			list = append(list, fmt.Sprintf("switched %s to %s", e.Switched.From, e.Switched.To))
		case e.Renumbered != nil:
			list = append(list, fmt.Sprintf("%s renumbered %s to %s", e.Network, e.Renumbered.Old, e.Renumbered.New))
		case e.LeaseAdded != nil:
			list = append(list, fmt.Sprintf("%s lease + %s", e.Network, e.LeaseAdded.Address))
		case e.LeaseRemoved != nil:
			list = append(list, fmt.Sprintf("%s lease - %s", e.Network, e.LeaseRemoved.Address))
		case e.PortAdded != nil:
			list = append(list, fmt.Sprintf("%s port + %s %d", e.Network, e.PortAdded.Interface, e.PortAdded.Owner))
		case e.PortRemoved != nil:
			list = append(list, fmt.Sprintf("%s port - %s %d", e.Network, e.PortRemoved.Interface, e.PortRemoved.Owner))
		}
	}
	return list
}

func clashing(subnet netip.Prefix) servicetest.Dock {
	d := wlan0
	d.Gateway = subnet.Addr().Next()
	d.Address = netip.PrefixFrom(d.Gateway.Next(), subnet.Bits())
	return d
}

// One Renumbered for a renumbering, also when some of it took a second attempt.
func TestRenumberedOnce(t *testing.T) {
	for name, fail := range map[string]func(int, plan.Op) bool{
		"at once": nil,
		"server":  isOp[plan.StartServer],
		"address": isOp[plan.AddAddress],
		"memory":  isOp[plan.RememberSubnet],
		"old":     isOp[plan.DeleteAddress],
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(b *bench) {
				b.create("lab", nil)
				old := b.network("lab").Subnet
				b.takeEvents()
				once := false
				b.m.Fail(func(n int, op plan.Op) bool {
					if once || fail == nil || !fail(n, op) {
						return false
					}
					once = true
					return true
				})
				b.m.Plug(clashing(old))
				time.Sleep(5 * time.Second)
				b.settle()
				now := b.network("lab").Subnet
				want := []string{fmt.Sprintf("lab renumbered %s to %s", old, now)}
				if got := eventTexts(b.takeEvents()); !slices.Equal(got, want) || old == now {
					t.Errorf("events %q, want %q", got, want)
				}
			})
		})
	}
}

// What a failed operation was to do is done by a later pass, also where the machine doesn't
// show that it is missing.
func TestFlushIsTriedAgain(t *testing.T) {
	run(t, func(b *bench) {
		b.create("lab", nil)
		b.m.Plug(wlan0)
		b.settle()
		b.m.AddFlow(vnet.Flow{Protocol: 6, Source: b.network("lab").Subnet.Addr().Next().Next(), Destination: ip("203.0.113.9"), Translated: ip("10.1.0.5")})
		once := false
		b.m.Fail(func(n int, op plan.Op) bool {
			if once || !isOp[plan.FlushFlows](n, op) {
				return false
			}
			once = true
			return true
		})
		b.m.SetCarrier("eth0", false)
		time.Sleep(5 * time.Second)
		b.settle()
		if flows := b.m.Flows(); !once || len(flows) > 0 {
			t.Errorf("flows %v are left", flows)
		}
	})
}

// A change that comes during a pass was detected when it came, not when the pass was done.
func TestDetectedDuringPass(t *testing.T) {
	run(t, func(b *bench) {
		b.create("lab", nil)
		b.m.Plug(wlan0)
		b.settle()
		b.takeEvents()
		begun := time.Now()
		b.m.SetOpTime(100 * time.Millisecond)
		b.m.StopServer("lab") // two operations to mend
		time.Sleep(50 * time.Millisecond)
		b.m.SetCarrier("eth0", false)
		time.Sleep(5 * time.Second)
		b.settle()
		got := switches(b.takeEvents())
		if len(got) != 1 {
			t.Fatalf("switches %+v", got)
		}
		// The clock of the bench began 50 ms before this test's steps, in settle.
		if at := got[0].Detected - 50*time.Millisecond - time.Hour; at != 50*time.Millisecond || got[0].NATDone <= got[0].Detected {
			t.Errorf("detected %s after the beginning (%s), done %s", at, time.Since(begun), got[0].NATDone)
		}
	})
}
