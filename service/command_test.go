package service_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gangway/service/plan"
	"gangway/service/vnet"
)

var ctx = context.Background()

// isOp returns a fault for operations of T's type.
func isOp[T plan.Op](_ int, op plan.Op) bool {
	_, ok := op.(T)
	return ok
}

func TestCreateRepliesWhenInForce(t *testing.T) {
	run(t, func(b *bench) {
		b.create("lab", map[string]any{"mtu": uint32(1400)})
		n := b.network("lab")
		if n.State != vnet.Active || n.IPv4State != "nat" || n.Uplink != "eth0" || n.Bridge != "gway0" || !n.Address.IsValid() || n.Settings.MTU != 1400 {
			t.Errorf("published: %+v", n)
		}
		text := b.m.Text()
		for _, want := range []string{"link gway0", "address " + n.Address.String() + " of gway0", "chains true",
			"entry gangway-nat " + n.Subnet.String() + ",eth0", "server {Network:lab"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q on the machine:\n%s", want, text)
			}
		}
		if _, err := os.Stat(filepath.Join(b.dir, "etc/networks/lab.toml")); err != nil {
			t.Error(err)
		}
		log := b.m.Log()
		b.m.Poke("nothing")
		b.settle()
		if more := b.m.Log(); len(log) == 0 || len(more) > 0 {
			t.Errorf("a poke without a change did %v", more)
		}
	})
}

// Whichever operation fails, a network that can't be created leaves nothing.
func TestCreateFailsWithoutTrace(t *testing.T) {
	// These don't concern the network: what uplinks used is remembered for later choices.
	harmless := func(op plan.Op) bool { _, ok := op.(plan.RememberUplinkPrefix); return ok }
	for at := 1; ; at++ {
		failed := ""
		t.Run(fmt.Sprint("operation ", at), func(t *testing.T) {
			run(t, func(b *bench) {
				before := b.m.Text()
				once := false
				b.m.Fail(func(n int, op plan.Op) bool {
					if n == at && !once && !harmless(op) {
						once, failed = true, op.String()
						return true
					}
					if n == at {
						failed = "none"
					}
					return false
				})
				err := b.svc.CreateNetwork(ctx, "lab", nil)
				if failed == "none" || failed == "" {
					if err != nil {
						t.Error(err)
					}
					return
				}
				b.wantKind(err, vnet.Failed)
				if err != nil && !strings.Contains(err.Error(), failed) {
					t.Errorf("the error %q doesn't name the operation %q", err, failed)
				}
				b.wantMachine(before)
				if left := b.m.Left(); len(left) > 0 {
					t.Errorf("%s failed; left behind: %v", failed, left)
				}
				if defs, err := b.store.Definitions(); err != nil || len(defs) > 0 {
					t.Errorf("definitions %v, %v", defs, err)
				}
				if m := b.store.Memory(); len(m.Subnets) > 0 {
					t.Errorf("memory %v", m)
				}
				if networks := b.svc.Snapshot().Networks; len(networks) > 0 {
					t.Errorf("published: %+v", networks)
				}
			})
		})
		if failed == "" {
			if at < 15 {
				t.Errorf("only %d operations were tried", at)
			}
			return
		}
	}
}

func TestUpdateFailureRestores(t *testing.T) {
	tests := []struct {
		name   string
		fail   func(int, plan.Op) bool
		values map[string]any
	}{
		{"mtu", isOp[plan.SetMTU], map[string]any{"mtu": uint32(1400), "domain": "x.internal"}},
		{"server", isOp[plan.StartServer], map[string]any{"domain": "x.internal"}},
		{"subnet", func(_ int, op plan.Op) bool { return strings.Contains(op.String(), "add address 10.77.") }, map[string]any{"ipv4-subnet": "10.77.0.0/16"}},
		{"bridge", func(_ int, op plan.Op) bool { return strings.HasPrefix(op.String(), "create bridge virt0") }, map[string]any{"bridge": "virt0"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			run(t, func(b *bench) {
				b.create("lab", nil)
				settings, before := b.network("lab").Settings, b.m.Text()
				count := 0
				b.m.Fail(func(n int, op plan.Op) bool {
					if test.fail(n, op) {
						count++
						return count == 1 // what puts the old back may succeed
					}
					return false
				})
				b.wantKind(b.svc.UpdateNetwork(ctx, "lab", test.values), vnet.Failed)
				b.m.Fail(nil)
				if got := b.network("lab"); fmt.Sprint(got.Settings) != fmt.Sprint(settings) || got.State != vnet.Active {
					t.Errorf("published %+v, was %+v", got, settings)
				}
				b.wantMachine(before)
				b.restart()
				b.wantMachine(before)
				if got := b.network("lab").Settings; fmt.Sprint(got) != fmt.Sprint(settings) {
					t.Errorf("after a restart the settings are %+v", got)
				}
			})
		})
	}
}

func TestAttachFailureRestores(t *testing.T) {
	run(t, func(b *bench) {
		b.m.AddVeth("veth0")
		b.create("lab", map[string]any{"isolate-ports": true})
		before := b.m.Text()
		b.m.Fail(isOp[plan.AddPort])
		b.wantKind(b.svc.Attach(ctx, "lab", "veth0", nil, 1000), vnet.Failed)
		b.m.Fail(nil)
		b.wantMachine(before)
		b.m.Poke("later")
		b.settle()
		if ports := b.network("lab").Ports; len(ports) > 0 {
			t.Errorf("ports %v", ports)
		}
	})
}

func TestDetachFailureRestores(t *testing.T) {
	run(t, func(b *bench) {
		b.m.AddVeth("veth0")
		b.create("lab", nil)
		b.must(b.svc.Attach(ctx, "lab", "veth0", nil, 1000))
		b.m.Fail(isOp[plan.RemovePort])
		if err := b.svc.Detach(ctx, "lab", "veth0"); err == nil {
			t.Error("no error")
		}
		b.m.Fail(nil)
		b.restart()
		if ports := b.network("lab").Ports; len(ports) != 1 || ports[0].Owner != 1000 {
			t.Errorf("ports %+v, want veth0 of 1000: nothing was changed", ports)
		}
	})
}

func TestAttachDetach(t *testing.T) {
	run(t, func(b *bench) {
		index := b.m.AddVeth("veth0")
		b.m.AddLink(vnet.Link{Name: "br0", Kind: "bridge", Type: 1})
		b.m.AddLink(vnet.Link{Name: "tun9", Kind: "tun", Type: 65534})
		b.create("lab", nil)
		b.create("other", nil)
		b.must(b.svc.Attach(ctx, "lab", "veth0", nil, 1000))
		b.must(b.svc.Attach(ctx, "lab", "veth0", nil, 1000)) // idempotent
		b.m.SetLearned(index, "52:54:00:00:00:01")
		b.m.EditLink("veth0", func(l *vnet.Link) { l.RxBytes, l.TxBytes = 10, 20 })
		ports, err := b.svc.Ports(ctx, "lab")
		want := vnet.Port{Interface: "veth0", Kind: "attached", MAC: "52:54:00:00:00:01", Owner: 1000, RxBytes: 10, TxBytes: 20}
		if err != nil || len(ports) != 1 || ports[0] != want {
			t.Errorf("ports %+v, %v, want %+v", ports, err, want)
		}
		b.wantKind(b.svc.Attach(ctx, "other", "veth0", nil, 0), vnet.InUse)
		b.wantKind(b.svc.Attach(ctx, "lab", "eth0", nil, 0), vnet.InUse)
		b.wantKind(b.svc.Attach(ctx, "lab", "none0", nil, 0), vnet.InvalidSetting)
		b.wantKind(b.svc.Attach(ctx, "lab", "br0", nil, 0), vnet.InvalidSetting)
		b.wantKind(b.svc.Attach(ctx, "lab", "gway1", nil, 0), vnet.InvalidSetting)
		b.wantKind(b.svc.Attach(ctx, "lab", "lo", nil, 0), vnet.InvalidSetting)
		b.wantKind(b.svc.Attach(ctx, "lab", "tun9", nil, 0), vnet.InvalidSetting)
		b.wantKind(b.svc.Attach(ctx, "lab", "veth0", map[string]any{"x": true}, 0), vnet.InvalidSetting)
		b.wantKind(b.svc.Detach(ctx, "other", "veth0"), vnet.InvalidSetting)
		b.must(b.svc.Detach(ctx, "lab", "veth0"))
		if ports := b.network("lab").Ports; len(ports) > 0 || strings.Contains(b.m.Text(), "port veth0") {
			t.Errorf("ports %+v after Detach", ports)
		}
		b.must(b.svc.StopNetwork(ctx, "lab"))
		b.wantKind(b.svc.Attach(ctx, "lab", "veth0", nil, 0), vnet.Failed)
	})
}

func TestCreateRefuses(t *testing.T) {
	run(t, func(b *bench) {
		b.m.AddLink(vnet.Link{Name: "br0", Kind: "bridge", Type: 1})
		b.create("lab", map[string]any{"ipv4-subnet": "192.168.77.0/24", "bridge": "virt0"})
		before := b.m.Text()
		tests := []struct {
			name   string
			values map[string]any
			kind   vnet.ErrorKind
			key    string
		}{
			{"lab", nil, vnet.NetworkExists, ""},
			{"Lab!", nil, vnet.InvalidSetting, "name"},
			{"a", map[string]any{"colour": "red"}, vnet.InvalidSetting, "colour"},
			{"a", map[string]any{"mtu": "1400"}, vnet.InvalidSetting, "mtu"},
			{"a", map[string]any{"ipv6-method": "nat"}, vnet.InvalidSetting, "ipv6-method"},
			{"a", map[string]any{"ipv6-prefix": "2001:db8::/65"}, vnet.InvalidSetting, "ipv6-prefix"},
			{"a", map[string]any{"bridge": "virt0"}, vnet.InUse, "bridge"},
			{"a", map[string]any{"bridge": "br0"}, vnet.InUse, "bridge"},
			{"a", map[string]any{"ipv4-subnet": "192.168.77.128/25"}, vnet.SubnetConflict, "ipv4-subnet"},
			{"a", map[string]any{"ipv4-subnet": "10.1.0.0/16"}, vnet.SubnetConflict, "ipv4-subnet"},
		}
		for _, test := range tests {
			err := b.svc.CreateNetwork(ctx, test.name, test.values)
			b.wantKind(err, test.kind)
			var e *vnet.Error
			if test.key != "" && (!errors.As(err, &e) || e.Key != test.key) {
				t.Errorf("%s %v: error %v names the key %q", test.name, test.values, err, e.Key)
			}
		}
		for name, err := range map[string]error{
			"update": b.svc.UpdateNetwork(ctx, "none", nil), "start": b.svc.StartNetwork(ctx, "none"),
			"stop": b.svc.StopNetwork(ctx, "none"), "delete": b.svc.DeleteNetwork(ctx, "none"),
			"attach": b.svc.Attach(ctx, "none", "eth0", nil, 0), "detach": b.svc.Detach(ctx, "none", "eth0"),
		} {
			if vnet.KindOf(err) != vnet.NoSuchNetwork {
				t.Errorf("%s: %v", name, err)
			}
		}
		b.wantMachine(before)
	})
}

func TestStartStopDelete(t *testing.T) {
	run(t, func(b *bench) {
		before := b.m.Text()
		b.create("lab", map[string]any{"autostart": false})
		if n := b.network("lab"); n.State != vnet.Inactive || b.m.Text() != before {
			t.Errorf("not to be started: %+v", n)
		}
		for range 2 {
			b.must(b.svc.StartNetwork(ctx, "lab"))
		}
		running := b.m.Text()
		b.restart()
		if b.network("lab").State != vnet.Active || b.m.Text() != running {
			t.Error("it was started, but doesn't run after a restart of the daemon")
		}
		for range 2 {
			b.must(b.svc.StopNetwork(ctx, "lab"))
		}
		b.wantMachine(before)
		if n := b.network("lab"); n.State != vnet.Inactive {
			t.Errorf("stopped: %+v", n)
		}
		b.must(b.svc.StartNetwork(ctx, "lab"))
		b.m.SetLeases("lab", vnet.Lease{MAC: "52:54:00:00:00:01", Address: b.network("lab").Subnet.Addr().Next().Next()})
		b.must(b.svc.DeleteNetwork(ctx, "lab"))
		b.wantMachine(before)
		if len(b.svc.Snapshot().Networks) > 0 || len(b.store.Memory().Subnets) > 0 || len(b.store.Runtime().Started) > 0 {
			t.Errorf("deleted, but %+v, %+v, %+v are left", b.svc.Snapshot().Networks, b.store.Memory(), b.store.Runtime())
		}
		b.wantKind(b.svc.DeleteNetwork(ctx, "lab"), vnet.NoSuchNetwork)
	})
}

// Autostart is about the start of the daemon: changing it neither starts nor stops.
func TestAutostartDoesNotStartOrStop(t *testing.T) {
	run(t, func(b *bench) {
		b.create("on", nil)
		b.create("off", map[string]any{"autostart": false})
		b.must(b.svc.UpdateNetwork(ctx, "on", map[string]any{"autostart": false}))
		b.must(b.svc.UpdateNetwork(ctx, "off", map[string]any{"autostart": true}))
		for range 2 {
			if on, off := b.network("on").State, b.network("off").State; on != vnet.Active || off != vnet.Inactive {
				t.Errorf("on is %s, off is %s", on, off)
			}
			b.restart()
		}
	})
}

func TestUpdateLive(t *testing.T) {
	run(t, func(b *bench) {
		b.m.AddVeth("veth0")
		b.create("lab", nil)
		b.must(b.svc.Attach(ctx, "lab", "veth0", nil, 0))
		b.m.Log()
		b.must(b.svc.UpdateNetwork(ctx, "lab", map[string]any{"isolate-ports": true}))
		if log := b.m.Log(); !slices.Equal(log, []string{"filter what is routed, following the host: gway0, no tunnels: eth0", "set isolation of port veth0 to true"}) {
			t.Errorf("operations %q", log)
		}
		b.must(b.svc.UpdateNetwork(ctx, "lab", map[string]any{"bridge": "virt0"}))
		n := b.network("lab")
		if n.Bridge != "virt0" || len(n.Ports) != 1 || strings.Contains(b.m.Text(), "link gway0") {
			t.Errorf("renamed: %+v\n%s", n, b.m.Text())
		}
		b.must(b.svc.UpdateNetwork(ctx, "lab", map[string]any{"bridge": ""}))
		if n := b.network("lab"); n.Bridge != "virt0" {
			t.Errorf("bridge %q", n.Bridge)
		}
	})
}

// A definition that can't be used fails alone, and can be deleted.
func TestBrokenDefinition(t *testing.T) {
	run(t, func(b *bench) {
		b.create("good", nil)
		before := b.m.Text()
		b.end()
		if err := os.WriteFile(filepath.Join(b.dir, "etc/networks/bad.toml"), []byte("mtu = 1\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		b.begin()
		if bad, good := b.network("bad"), b.network("good"); bad.State != vnet.FailedNetwork || !strings.Contains(bad.Reason, "line 1") || good.State != vnet.Active {
			t.Errorf("bad %+v, good %+v", bad, good)
		}
		b.wantKind(b.svc.StartNetwork(ctx, "bad"), vnet.Failed)
		b.wantKind(b.svc.UpdateNetwork(ctx, "bad", map[string]any{"mtu": uint32(1400)}), vnet.Failed)
		b.must(b.svc.StopNetwork(ctx, "bad"))
		b.must(b.svc.UpdateNetwork(ctx, "good", map[string]any{"domain": "x.internal"}))
		b.must(b.svc.UpdateNetwork(ctx, "good", map[string]any{"domain": "good.internal"}))
		b.must(b.svc.DeleteNetwork(ctx, "bad"))
		b.wantMachine(before)
	})
}

// What fails for one network is no reason to refuse a command for another.
func TestFailureOfAnotherNetwork(t *testing.T) {
	for name, fail := range map[string]func(string) bool{
		"server":    func(op string) bool { return strings.HasPrefix(op, "start DNS and DHCP of a ") },
		"sysctl":    func(op string) bool { return op == "set sysctl net/ipv4/conf/gway0/forwarding = 1" },
		"isolation": func(op string) bool { return op == "set isolation of port veth0 to true" },
		"port":      func(op string) bool { return op == "add port veth0 to gway0, isolated" },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(b *bench) {
				b.m.AddVeth("veth0")
				b.create("a", map[string]any{"isolate-ports": true})
				b.must(b.svc.Attach(ctx, "a", "veth0", nil, 0))
				b.m.Fail(func(_ int, op plan.Op) bool { return fail(op.String()) })
				b.m.StopServer("a")
				b.m.SetSysctl("net/ipv4/conf/gway0/forwarding", "0")
				b.m.EditLink("veth0", func(l *vnet.Link) {
					if l.Isolated = false; name == "port" {
						l.Master = 0
					}
				})
				b.settle()
				if a := b.network("a"); a.State != vnet.Degraded {
					t.Errorf("a is %s", a.State)
				}
				b.create("b", nil)
				if n := b.network("b"); n.State != vnet.Active {
					t.Errorf("b: %+v", n)
				}
			})
		})
	}
}
