package service_test

import (
	"errors"
	"testing"
	"time"

	"gangway/service/plan"
)

// What can't be looked at doesn't hold up the rest: a switch goes on without the servers, and
// a clash, where the host's own connectivity is at stake, is ended without either.
func TestBlindRoomHoldsUpNothingElse(t *testing.T) {
	for name, room := range map[string]plan.Room{"firewall": plan.FirewallRoom, "servers": plan.ServerRoom} {
		t.Run(name, func(t *testing.T) {
			run(t, func(b *bench) {
				b.create("lab", nil)
				old := b.network("lab").Subnet
				b.m.FailObserve(room, errors.New("no answer"))
				if room == plan.ServerRoom {
					b.m.Plug(wlan0)
					b.m.SetCarrier("eth0", false)
					time.Sleep(time.Second)
					if n := b.network("lab"); n.Uplink != "wlan0" {
						t.Errorf("bound to %q", n.Uplink)
					}
				}
				b.m.Plug(clashing(old))
				time.Sleep(time.Second)
				if n := b.network("lab"); !n.Subnet.IsValid() || n.Subnet.Overlaps(old) {
					t.Errorf("still in %s, the host's is %s", n.Subnet, old)
				}
				b.m.FailObserve(room, nil)
				time.Sleep(time.Minute)
				b.settle()
				if n := b.network("lab"); n.State != "active" {
					t.Errorf("afterwards %s: %s", n.State, n.Reason)
				}
			})
		})
	}
}
