package main

import (
	"context"
	"fmt"
	"os"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// pass measures one pass: from NetworkManager's signal to the kernel's last change, with
// more and more networks.
func pass(ctx context.Context, c config) error {
	goals := map[int]string{1: "≤ 15", 50: "≤ 60"}
	var list []*series
	p, err := raise(ctx, c.options(), false)
	if err != nil {
		return err
	}
	defer p.Close()
	if c.debug {
		defer p.DumpLogs(os.Stderr, 4<<20)
	}
	have := 1
	for _, n := range []int{1, 10, 50, 200} {
		for ; have < n; have++ {
			if err := p.call(ctx, root, "Manager.CreateNetwork", fmt.Sprintf("net%d", have), map[string]godbus.Variant{}).Err; err != nil {
				return err
			}
		}
		whole := &series{name: fmt.Sprintf("%d networks: NM's signal to the last kernel change", n), unit: "ms", goal: goals[n]}
		own := &series{name: fmt.Sprintf("%d networks: noticed to the last kernel change", n), unit: "ms"}
		for range c.runs {
			if err := p.passOnce(ctx, whole, own); err != nil {
				return err
			}
		}
		list = append(list, whole, own)
	}
	table("Pass: how long a switch takes", list...)
	return nil
}

// passOnce makes the other uplink primary by its metric alone: nothing else changes.
func (p *laptop) passOnce(ctx context.Context, whole, own *series) error {
	now, err := p.NM.Primary(ctx)
	if err != nil {
		return err
	}
	to := map[string]string{"eth0": "wlan0", "wlan0": "eth0"}[now]
	if err := quiet(ctx); err != nil {
		return err
	}
	p.switched(to) // drop what is old
	primary, err := p.watchPrimary()
	if err != nil {
		return err
	}
	offset := monotonic() - time.Duration(time.Now().UnixNano())
	metric := map[string]string{"eth0": "900", "wlan0": "600"}[now]
	if now == "wlan0" { // eth0 comes back to its own
		metric = "100"
	}
	if _, err := p.NM.Cli(ctx, "device", "modify", "eth0", "ipv4.route-metric", metric); err != nil {
		return err
	}
	if err := p.waitMoored(ctx, to); err != nil {
		return err
	}
	if err := pause(ctx, 500*time.Millisecond); err != nil {
		return err
	}
	detected, done, ok := p.switched(to)
	if !ok {
		return fmt.Errorf("Gangway reported no switch to %s", to)
	}
	at, ok := primary()
	if !ok {
		return fmt.Errorf("NetworkManager announced no change of PrimaryConnection")
	}
	whole.addMS(done - (offset + time.Duration(at.UnixNano())))
	own.addMS(done - detected)
	return nil
}
