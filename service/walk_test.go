package service_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"gangway/service/plan"
	"gangway/service/servicetest"
	"gangway/service/vnet"
)

// step is one step of a random walk; the numbers are taken modulo what there is.
type step struct{ what, a, b int }

func (s step) String() string { return fmt.Sprintf("{%s %d %d}", deeds[s.what].name, s.a, s.b) }

var (
	names   = []string{"default", "alpha", "beta"}
	tun0    = servicetest.Dock{Name: "tun0", Kind: vnet.VPN, Address: pfx("10.3.0.2/32"), Default: true, Metric: 50, MTU: 1420}
	docks   = []servicetest.Dock{eth0, wlan0, tun0}
	updates = []map[string]any{
		{}, {"ipv4-method": "isolated"}, {"ipv4-method": "routed"}, {"ipv4-method": "nat"}, {"uplink": "wlan0"}, {"uplink": "auto"},
		{"vpn": "bypass"}, {"vpn": "block"}, {"ipv4-subnet": "192.168.140.0/26"}, {"ipv4-subnet": "auto"}, {"on-clash": "report"},
		{"bridge": "virt0"}, {"bridge": "gway0"}, {"mtu": uint32(1400)}, {"isolate-ports": true}, {"autostart": false}, {"autostart": true},
		{"domain": "x.internal"}, {"ipv6-method": "off"},
	}
)

// deeds are what may happen: changes from outside are made on the twin, too.
var deeds = []struct {
	name string
	do   func(b *bench, twin *servicetest.Machine, s step) error
}{
	{"plug", func(b *bench, twin *servicetest.Machine, s step) error {
		d := docks[s.a%len(docks)]
		if networks := b.svc.Snapshot().Networks; d.Kind != vnet.VPN && s.b%4 == 0 && len(networks) > 0 {
			if p := networks[s.b/4%len(networks)].Subnet; p.IsValid() { // in the way of a network
				d.Gateway = p.Addr().Next()
				d.Address = netip.PrefixFrom(d.Gateway.Next(), p.Bits())
			}
		}
		if d.Kind != vnet.VPN && s.b%3 == 0 {
			d.Metric = 700 - d.Metric
		}
		twin.Plug(d)
		b.m.Plug(d)
		return nil
	}},
	{"unplug", func(b *bench, twin *servicetest.Machine, s step) error {
		twin.Unplug(docks[s.a%len(docks)].Name)
		b.m.Unplug(docks[s.a%len(docks)].Name)
		return nil
	}},
	{"carrier", func(b *bench, twin *servicetest.Machine, s step) error {
		twin.SetCarrier(docks[s.a%len(docks)].Name, s.b%2 == 0)
		b.m.SetCarrier(docks[s.a%len(docks)].Name, s.b%2 == 0)
		return nil
	}},
	{"create", func(b *bench, _ *servicetest.Machine, s step) error {
		return b.svc.CreateNetwork(ctx, names[s.a%len(names)], updates[s.b%len(updates)])
	}},
	{"update", func(b *bench, _ *servicetest.Machine, s step) error {
		return b.svc.UpdateNetwork(ctx, names[s.a%len(names)], updates[s.b%len(updates)])
	}},
	{"start", func(b *bench, _ *servicetest.Machine, s step) error {
		return b.svc.StartNetwork(ctx, names[s.a%len(names)])
	}},
	{"stop", func(b *bench, _ *servicetest.Machine, s step) error {
		return b.svc.StopNetwork(ctx, names[s.a%len(names)])
	}},
	{"delete", func(b *bench, _ *servicetest.Machine, s step) error {
		return b.svc.DeleteNetwork(ctx, names[s.a%len(names)])
	}},
	{"attach", func(b *bench, _ *servicetest.Machine, s step) error {
		return b.svc.Attach(ctx, names[s.a%len(names)], fmt.Sprint("veth", s.b%3), nil, uint32(s.b))
	}},
	{"detach", func(b *bench, _ *servicetest.Machine, s step) error {
		return b.svc.Detach(ctx, names[s.a%len(names)], fmt.Sprint("veth", s.b%3))
	}},
	{"tamper", func(b *bench, _ *servicetest.Machine, s step) error {
		switch s.a % 4 {
		case 0:
			b.m.FlushChains()
		case 1:
			b.m.RemoveRules(func(r vnet.Rule) bool { return r.Protocol == plan.Protocol })
		case 2:
			b.m.StopServer(names[s.b%len(names)])
		case 3:
			b.m.RemoveLink("gway0")
		}
		return nil
	}},
}

func drawSteps(t *rapid.T, most int) []step {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		return step{
			what: rapid.IntRange(0, len(deeds)-1).Draw(t, "what"),
			a:    rapid.IntRange(0, 19).Draw(t, "a"),
			b:    rapid.IntRange(0, 59).Draw(t, "b"),
		}
	}), 1, most).Draw(t, "steps")
}

// inBubble runs f in a bubble and returns its error, since rapid's failures must not
// happen in there.
func inBubble(t *testing.T, dir string, f func(b *bench, twin *servicetest.Machine) error) (err error) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, m: servicetest.New(), dir: dir}
		twin := servicetest.New()
		for _, m := range []*servicetest.Machine{b.m, twin} {
			m.Plug(eth0)
			for i := range 3 {
				m.AddVeth(fmt.Sprint("veth", i))
			}
		}
		if err = b.tryBegin(); err != nil {
			return
		}
		defer func() { b.end() }()
		err = f(b, twin)
	})
	return err
}

// do does one step and says what is wrong with what came of it.
func (b *bench) do(twin *servicetest.Machine, s step) error {
	before := b.m.Text()
	published := fmt.Sprintf("%+v", b.svc.Snapshot().Networks)
	err := deeds[s.what].do(b, twin, s)
	inForce := b.m.Text()
	b.settle()
	b.m.Log()
	if n := len(b.log()); n > 0 {
		return fmt.Errorf("%v left work to do: %v", s, n)
	}
	switch {
	case err != nil && b.m.Text() != before:
		return fmt.Errorf("%v failed (%w) and changed the machine:\n%s", s, err, cmp.Diff(before, b.m.Text()))
	case err != nil && fmt.Sprintf("%+v", b.svc.Snapshot().Networks) != published:
		return fmt.Errorf("%v failed (%w) and changed what is published:\n%s", s, err, cmp.Diff(published, fmt.Sprintf("%+v", b.svc.Snapshot().Networks)))
	case s.isCommand() && err == nil && inForce != b.m.Text():
		return fmt.Errorf("%v replied before it was in force:\n%s", s, cmp.Diff(inForce, b.m.Text()))
	}
	return b.check(twin)
}

func (s step) isCommand() bool {
	return slices.Contains([]string{"create", "update", "start", "stop", "delete", "attach", "detach"}, deeds[s.what].name)
}

// log pokes and returns what that made the service do.
func (b *bench) log() []string {
	b.m.Poke("check")
	b.settle()
	return b.m.Log()
}

// check compares foreign state with the twin's, and what is published with the machine.
func (b *bench) check(twin *servicetest.Machine) error {
	foreign := strings.Split(b.m.Foreign(true), "\n")
	for _, line := range foreign {
		if !slices.Contains(strings.Split(twin.Foreign(false), "\n"), line) {
			return fmt.Errorf("foreign state was changed: %s", line)
		}
	}
	text := b.m.Text()
	snapshot := b.svc.Snapshot()
	for _, n := range snapshot.Networks {
		running := strings.Contains(text, fmt.Sprintf("alias %q", plan.AliasPrefix+n.Name))
		should := n.State == vnet.Active || n.State == vnet.Degraded
		if running != should {
			return fmt.Errorf("network %s is %s, its bridge is there: %v", n.Name, n.State, running)
		}
		if should && n.Address.IsValid() && !strings.Contains(text, fmt.Sprintf("address %s of %s\n", n.Address, n.Bridge)) {
			return fmt.Errorf("network %s should have the address %s", n.Name, n.Address)
		}
		if u, ok := snapshot.Uplink(n.Uplink); n.Uplink != "" && (!ok || !u.Usable) {
			return fmt.Errorf("network %s is bound to %s: %+v", n.Name, n.Uplink, u)
		}
		for _, p := range n.Ports {
			if !strings.Contains(text, fmt.Sprintf("port %s of %s ", p.Interface, n.Bridge)) {
				return fmt.Errorf("network %s has no port %s", n.Name, p.Interface)
			}
		}
	}
	return nil
}

// Commands and changes of the machine in any order: commands do what they say or
// nothing, and in the end the machine is as if nothing of ours had run.
func TestServiceWalk(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		steps := drawSteps(rt, 15)
		err := inBubble(t, t.TempDir(), func(b *bench, twin *servicetest.Machine) error {
			for i, s := range steps {
				if err := b.do(twin, s); err != nil {
					return fmt.Errorf("step %d: %w", i, err)
				}
			}
			if err := b.svc.Shutdown(ctx); err != nil {
				return err
			}
			if left := b.m.Left(); len(left) > 0 {
				return fmt.Errorf("left behind: %v", left)
			}
			if diff := cmp.Diff(twin.Foreign(false), b.m.Foreign(false)); diff != "" {
				return fmt.Errorf("the machine differs from one without Gangway:\n%s", diff)
			}
			return nil
		})
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// The daemon is killed at some operation of the last step; the next one arrives at the same
// state as one that wasn't killed.
func TestServiceKilled(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		steps := drawSteps(rt, 8)
		n, midway := rapid.IntRange(0, 40).Draw(rt, "operations"), rapid.Bool().Draw(rt, "midway")
		var want, got string
		for _, kill := range []bool{false, true} {
			err := inBubble(t, t.TempDir(), func(b *bench, twin *servicetest.Machine) error {
				last := len(steps) - 1
				for i, s := range steps[:last] {
					if err := b.do(twin, s); err != nil {
						return fmt.Errorf("step %d: %w", i, err)
					}
				}
				if kill {
					b.m.KillAfter(n, midway)
				}
				_ = deeds[steps[last].what].do(b, twin, steps[last]) // what a killed daemon would answer is of no interest
				b.settle()
				if kill {
					b.end()
					b.m.Revive()
					b.begin()
				}
				b.settle()
				if err := b.check(twin); err != nil {
					return err
				}
				if kill {
					got = b.m.Text()
				} else {
					want = b.m.Text()
				}
				return nil
			})
			if err != nil {
				rt.Fatal(err)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatalf("after a kill (-undisturbed +killed):\n%s", diff)
		}
	})
}
