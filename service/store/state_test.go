package store

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gangway/service/plan"
	"gangway/service/vnet"
)

var (
	subnet = netip.MustParsePrefix("192.168.231.0/24")
)

// stamp tells whether a file was written anew: each write makes another inode.
func stamp(t *testing.T, path string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func apply(t *testing.T, s *Store, ops ...plan.Op) {
	t.Helper()
	outcomes := s.Apply(context.Background(), ops)
	if len(outcomes) != len(ops) {
		t.Errorf("%d outcomes of %d ops", len(outcomes), len(ops))
	}
	for i, o := range outcomes {
		if o.Err != nil {
			t.Errorf("%s: %v", ops[i], o.Err)
		}
	}
}

func TestMemoryOutlivesTheProcess(t *testing.T) {
	l := newLab(t)
	s := l.open(t)
	if m := s.Memory(); m.Subnets == nil || len(m.Subnets)+len(m.UplinkPrefixes) > 0 {
		t.Fatalf("memory at first: %+v", m)
	}
	path := filepath.Join(l.StateDir, "memory.json")
	apply(t, s)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no operation wrote a file (%v)", err)
	}
	ops := []plan.Op{
		plan.RememberSubnet{Network: "lab", Subnet: subnet},
		plan.RememberPrefix{Network: "lab", Prefix: netip.MustParsePrefix("2001:db8:1:2::/64")},
		plan.RememberUplinkPrefix{Prefix: netip.MustParsePrefix("10.1.2.3/16")},
		plan.RememberUplinkPrefix{Prefix: netip.MustParsePrefix("2001:db8::1/64")},
	}
	apply(t, s, ops...)
	want := Memory{
		Subnets:        map[string]netip.Prefix{"lab": subnet},
		Prefixes:       map[string]netip.Prefix{"lab": netip.MustParsePrefix("2001:db8:1:2::/64")},
		UplinkPrefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("2001:db8::/64")},
	}
	for _, s := range []*Store{s, l.open(t)} {
		if diff := cmp.Diff(want, s.Memory(), equalSettings); diff != "" {
			t.Errorf("memory (-want +got):\n%s", diff)
		}
	}

	before := stamp(t, path)
	apply(t, s, ops...)
	if !os.SameFile(before, stamp(t, path)) {
		t.Error("the same operations again wrote the file")
	}
	if err := s.ForgetSubnet("other"); err != nil || !os.SameFile(before, stamp(t, path)) {
		t.Errorf("forgetting what isn't known wrote the file, or failed: %v", err)
	}
	if err := s.ForgetSubnet("lab"); err != nil {
		t.Fatal(err)
	}
	if got := l.open(t).Memory().Subnets; len(got) != 0 {
		t.Errorf("after ForgetSubnet: %v", got)
	}
}

func TestMemoryIsACopy(t *testing.T) {
	s := newLab(t).open(t)
	apply(t, s, plan.RememberSubnet{Network: "lab", Subnet: subnet}, plan.RememberUplinkPrefix{Prefix: subnet})
	m := s.Memory()
	delete(m.Subnets, "lab")
	m.UplinkPrefixes[0] = netip.Prefix{}
	if m := s.Memory(); m.Subnets["lab"] != subnet || m.UplinkPrefixes[0] != subnet {
		t.Errorf("the store's memory was changed through a copy: %+v", m)
	}
}

func TestUplinkPrefixesAreBounded(t *testing.T) {
	l := newLab(t)
	s := l.open(t)
	var ops []plan.Op
	for i := range MaxUplinkPrefixes + 44 {
		ops = append(ops, plan.RememberUplinkPrefix{Prefix: netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", i/256, i%256))})
	}
	apply(t, s, ops...)
	for _, s := range []*Store{s, l.open(t)} {
		got := s.Memory().UplinkPrefixes
		if len(got) != MaxUplinkPrefixes || got[0].String() != "10.0.44.0/24" || got[255].String() != "10.1.43.0/24" {
			t.Errorf("%d prefixes, from %v to %v; want the latest 256", len(got), got[0], got[len(got)-1])
		}
	}
}

func TestApplyReportsEachOperationByItself(t *testing.T) {
	s := newLab(t).open(t)
	ops := []plan.Op{
		plan.RememberSubnet{Network: "../lab", Subnet: subnet},
		plan.RememberSubnet{Network: "lab"},
		plan.RememberSubnet{Network: "lab", Subnet: netip.MustParsePrefix("10.0.0.1/24")},
		plan.RememberUplinkPrefix{},
		plan.SetLinkUp{Name: "gway0"},
		plan.RememberSubnet{Network: "good", Subnet: subnet},
	}
	for i, o := range s.Apply(context.Background(), ops) {
		if good := i == len(ops)-1; good != (o.Err == nil) {
			t.Errorf("%s: %v", ops[i], o.Err)
		}
	}
	if diff := cmp.Diff(map[string]netip.Prefix{"good": subnet}, s.Memory().Subnets, equalSettings); diff != "" {
		t.Errorf("subnets (-want +got):\n%s", diff)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if o := s.Apply(ctx, []plan.Op{plan.RememberSubnet{Network: "late", Subnet: subnet}}); !errors.Is(o[0].Err, context.Canceled) {
		t.Errorf("after cancellation: %v", o[0].Err)
	}
}

func TestRuntimeOutlivesTheProcess(t *testing.T) {
	l := newLab(t)
	s := l.open(t)
	if r := s.Runtime(); r.Ports == nil || r.Started == nil {
		t.Fatalf("nil maps at first: %+v", r)
	}
	want := Runtime{
		Ports:   map[string][]vnet.PortRef{"lab": {{Interface: "vnet0", Index: 7, Owner: 1000}, {Interface: "veth1", Index: 8}}},
		Started: map[string]bool{"lab": true, "other": false},
	}
	given := want.clone()
	given.Ports["empty"] = nil
	if err := s.SetRuntime(given); err != nil {
		t.Fatal(err)
	}
	given.Ports["lab"][0].Interface = "changed" // the caller's own again
	delete(s.Runtime().Started, "lab")
	for _, s := range []*Store{s, l.open(t)} {
		if diff := cmp.Diff(want, s.Runtime()); diff != "" {
			t.Errorf("runtime (-want +got):\n%s", diff)
		}
	}
	path := filepath.Join(l.RuntimeDir, "runtime.json")
	before := stamp(t, path)
	if err := s.SetRuntime(want); err != nil || !os.SameFile(before, stamp(t, path)) {
		t.Errorf("the same state again wrote the file, or failed: %v", err)
	}
	bad := want.clone()
	bad.Ports["../x"] = []vnet.PortRef{{Interface: "veth0"}}
	if err := s.SetRuntime(bad); err == nil || !cmp.Equal(want, s.Runtime()) {
		t.Errorf("a bad network name: %v, %+v", err, s.Runtime())
	}

	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bootID() == "" || !strings.Contains(string(text), bootID()) {
		t.Fatalf("runtime.json doesn't name the boot %q:\n%s", bootID(), text)
	}
	other := strings.Replace(string(text), bootID(), "00000000-1111-2222-3333-444444444444", 1)
	if err := os.WriteFile(path, []byte(other), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := l.open(t).Runtime(); len(r.Ports)+len(r.Started) > 0 {
		t.Errorf("runtime state of another boot: %+v, want none", r)
	}
}

func TestCorruptStateIsMovedAside(t *testing.T) {
	for name, text := range map[string]string{
		"empty":          "",
		"cut off":        `{"subnets": {"lab": "192.168.`,
		"binary":         "\x00\xff\x00",
		"another type":   `[1, 2]`,
		"no prefix":      `{"subnets": {"lab": "x"}, "ports": {"lab": 1}}`,
		"empty prefix":   `{"subnets": {"lab": ""}, "ports": 1}`,
		"host bits":      `{"uplink-prefixes": ["10.0.0.1/8"], "started": {"lab": 1}}`,
		"a path":         `{"subnets": {"../x": "10.0.0.0/8"}, "started": {"../x": true}}`,
		"strange port":   `{"subnets": 1, "ports": {"lab": [{"interface": "../x"}]}}`,
		"much too large": strings.Repeat(" ", maxFile+1),
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.open(t)
			paths := []string{filepath.Join(l.StateDir, "memory.json"), filepath.Join(l.RuntimeDir, "runtime.json")}
			for range 2 { // the second time there is a .corrupt already
				for _, path := range paths {
					if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				s := l.open(t)
				if m, r := s.Memory(), s.Runtime(); len(m.Subnets)+len(m.UplinkPrefixes)+len(r.Ports)+len(r.Started) > 0 {
					t.Errorf("began with %+v, %+v; want nothing", m, r)
				}
				for _, path := range paths {
					if kept, err := os.ReadFile(path + ".corrupt"); err != nil || string(kept) != text {
						t.Errorf("%s.corrupt: %.40q, %v", path, kept, err)
					}
					if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
						t.Errorf("%s is still there (%v)", path, err)
					}
					if !strings.Contains(l.log.String(), path+".corrupt") {
						t.Errorf("the log doesn't name %s.corrupt:\n%s", path, l.log.String())
					}
				}
				apply(t, s, plan.RememberSubnet{Network: "lab", Subnet: subnet})
				if err := s.SetRuntime(Runtime{Started: map[string]bool{"lab": true}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestSeed(t *testing.T) {
	l := newLab(t)
	l.MachineID = filepath.Join(t.TempDir(), "machine-id")
	const id = "0123456789abcdef0123456789abcdef"
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(l.MachineID, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(id + "\n")
	seed := l.open(t).Seed()
	// Bridges' MACs come of it: this value must never change. printf %s SALT | openssl dgst
	// -sha256 -hmac ID says the same.
	if want := "3a3828ccb463c90aabfe042de25e3d0f0dcbb1d304ab9043edbcbf8c46e60985"; seed != want {
		t.Errorf("seed %q, want %q", seed, want)
	}
	if strings.Contains(seed, id[:8]) {
		t.Errorf("seed %q shows the machine's id", seed)
	}
	write("1" + id[1:])
	if l.open(t).Seed() == seed {
		t.Error("another machine has the same seed")
	}
	if got := fileNames(t, l.StateDir); slices.Contains(got, "seed") {
		t.Errorf("a machine with an id has a seed file: %v", got)
	}

	var random string
	for _, text := range []string{"", "uninitialized\n", strings.Repeat("0", 32), "short", "x" + id[1:]} {
		write(text)
		seed := l.open(t).Seed()
		if random == "" {
			random = seed
		}
		if seed != random || !isHex(seed, 64) {
			t.Errorf("without an id (%q): seed %q, want the same random one each time, %q", text, seed, random)
		}
	}
	if info := stamp(t, filepath.Join(l.StateDir, "seed")); info.Mode() != 0o600 {
		t.Errorf("mode of the seed %v, want -rw-------", info.Mode())
	}
	if err := os.WriteFile(filepath.Join(l.StateDir, "seed"), []byte("cut"), 0o600); err != nil {
		t.Fatal(err)
	}
	if again := l.open(t).Seed(); again == random || !isHex(again, 64) || l.open(t).Seed() != again {
		t.Errorf("after a damaged seed file: %q, want a new one that stays", again)
	}
}
