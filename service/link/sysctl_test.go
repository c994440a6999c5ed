package link

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"gangway/service/plan"

	"github.com/google/go-cmp/cmp"
)

const borrowed = "net/ipv4/conf/gwta/forwarding"

func onDisk(t *testing.T, dir string) map[string]string {
	t.Helper()
	saved := map[string]string{}
	b, err := os.ReadFile(filepath.Join(dir, "sysctl.json"))
	must(t, err)
	must(t, json.Unmarshal(b, &saved))
	return saved
}

func set(t *testing.T, key, value string) {
	t.Helper()
	must(t, os.WriteFile("/proc/sys/"+key, []byte(value), 0))
}

func TestBorrowAndReturn(t *testing.T) {
	if !isolated(t) {
		return
	}
	veth(t, "gwta", "gwtb")
	dir := filepath.Join(t.TempDir(), "run")
	borrow := plan.BorrowSysctl{Key: borrowed, Value: "1"}
	giveBack := plan.ReturnSysctl{Key: borrowed, Value: "1"}
	remembered := map[string]string{borrowed: "0"}
	for range 2 {
		k := kernelIn(t, dir) // each time a process of its own
		apply(t, k, borrow)
		if d := cmp.Diff(remembered, observe(t, k).SavedSysctls); d != "" || sysctl(t, borrowed) != "1" {
			t.Errorf("borrowed: %s, saved (-want +got):\n%s", sysctl(t, borrowed), d)
		}
		if d := cmp.Diff(remembered, onDisk(t, dir)); d != "" {
			t.Error("on disk (-want +got):\n", d)
		}
	}
	set(t, borrowed, "0") // somebody interferes; what was first is what counts
	apply(t, kernelIn(t, dir), borrow)
	for range 2 {
		k := kernelIn(t, dir)
		apply(t, k, giveBack)
		if sysctl(t, borrowed) != "0" || len(observe(t, k).SavedSysctls) != 0 || len(onDisk(t, dir)) != 0 {
			t.Errorf("returned: %s, saved %v", sysctl(t, borrowed), onDisk(t, dir))
		}
	}
}

func TestReturnLeavesOthersValues(t *testing.T) {
	if !isolated(t) {
		return
	}
	veth(t, "gwta", "gwtb")
	const key = "net/ipv4/conf/gwta/rp_filter"
	dir := t.TempDir()
	k := kernelIn(t, dir)
	set(t, key, "1")
	apply(t, k, plan.BorrowSysctl{Key: key, Value: "2"})
	set(t, key, "0")
	apply(t, k, plan.ReturnSysctl{Key: key, Value: "2"})
	if sysctl(t, key) != "0" || len(onDisk(t, dir)) != 0 {
		t.Errorf("is %s, saved %v", sysctl(t, key), onDisk(t, dir))
	}
	set(t, key, "1")
	apply(t, k, plan.BorrowSysctl{Key: key, Value: "2"}, plan.ReturnSysctl{Key: key}) // not to be restored
	if sysctl(t, key) != "2" || len(onDisk(t, dir)) != 0 {
		t.Errorf("is %s, saved %v", sysctl(t, key), onDisk(t, dir))
	}
	apply(t, k, plan.BorrowSysctl{Key: key, Value: "2"}) // so it is already, by somebody else's wish
	if len(onDisk(t, dir)) != 0 {
		t.Errorf("borrowed what needed no change: %v", onDisk(t, dir))
	}
	set(t, key, "1")
	apply(t, k, plan.BorrowSysctl{Key: key, Value: "2"})
	ip(t, "link", "del", "gwta")
	apply(t, k, plan.ReturnSysctl{Key: key, Value: "2"})
	if len(onDisk(t, dir)) != 0 {
		t.Errorf("remembers a value of an interface that is gone: %v", onDisk(t, dir))
	}
	refused(t, k, plan.BorrowSysctl{Key: key, Value: "2"}, "cannot borrow sysctl")
	refused(t, k, plan.SetSysctl{Key: "net/../kernel/hostname", Value: "x"}, "not a path below net/")
}

// What IPv6 routing by an interface needs is borrowed as any other sysctl, whatever its directory is.
func TestBorrowForIPv6(t *testing.T) {
	if !isolated(t) {
		return
	}
	veth(t, "gwt.5", "gwtb")
	for key, value := range map[string]string{
		"net/ipv6/neigh/gwt.5/proxy_delay": "0", "net/ipv6/conf/gwt.5/proxy_ndp": "1", "net/ipv6/conf/all/proxy_ndp": "1",
		"net/ipv6/conf/gwt.5/forwarding": "1", "net/ipv6/conf/gwt.5/force_forwarding": "1", "net/ipv6/conf/gwt.5/accept_ra": "2",
	} {
		dir, before := t.TempDir(), sysctl(t, key)
		apply(t, kernelIn(t, dir), plan.BorrowSysctl{Key: key, Value: value})
		k := kernelIn(t, dir)
		have := observe(t, k, key)
		if have.Sysctls[key] != value || have.SavedSysctls[key] != before || before == value {
			t.Errorf("%s: observed %q, saved %q, was %q", key, have.Sysctls[key], have.SavedSysctls[key], before)
		}
		apply(t, k, plan.ReturnSysctl{Key: key, Value: value})
		if sysctl(t, key) != before || len(onDisk(t, dir)) != 0 {
			t.Errorf("%s: returned: %s, saved %v", key, sysctl(t, key), onDisk(t, dir))
		}
	}
}

// Killed after the memory was written and before the change; and after the value was
// given back and before it was forgotten.
func TestKilledBetween(t *testing.T) {
	if !isolated(t) {
		return
	}
	veth(t, "gwta", "gwtb")
	for _, c := range []struct{ name, value, wantBorrowed string }{
		{"before the change", "0", "1"},
		{"after the change", "1", "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, writeWhole(filepath.Join(dir, "sysctl.json"), map[string]string{borrowed: "0"}))
			must(t, os.WriteFile(filepath.Join(dir, "sysctl.json.new"), []byte("{half"), 0o600))
			set(t, borrowed, c.value)
			apply(t, kernelIn(t, dir), plan.ReturnSysctl{Key: borrowed, Value: "1"})
			if sysctl(t, borrowed) != "0" || len(onDisk(t, dir)) != 0 {
				t.Errorf("returned: %s, saved %v", sysctl(t, borrowed), onDisk(t, dir))
			}
			must(t, writeWhole(filepath.Join(dir, "sysctl.json"), map[string]string{borrowed: "0"}))
			set(t, borrowed, c.value)
			apply(t, kernelIn(t, dir), plan.BorrowSysctl{Key: borrowed, Value: "1"})
			if sysctl(t, borrowed) != c.wantBorrowed || onDisk(t, dir)[borrowed] != "0" {
				t.Errorf("borrowed: %s, saved %v", sysctl(t, borrowed), onDisk(t, dir))
			}
		})
	}
}

// Nothing is changed that can't be remembered.
func TestBorrowNeedsItsMemory(t *testing.T) {
	if !isolated(t) {
		return
	}
	veth(t, "gwta", "gwtb")
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	refused(t, kernelIn(t, filepath.Join(file, "run")), plan.BorrowSysctl{Key: borrowed, Value: "1"}, "cannot remember sysctls")
	if sysctl(t, borrowed) != "0" {
		t.Error("changed it nevertheless")
	}
}

func TestDamagedMemoryIsPutAside(t *testing.T) {
	if !isolated(t) {
		return
	}
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "sysctl.json"), []byte("{half"), 0o600))
	if saved := observe(t, kernelIn(t, dir)).SavedSysctls; len(saved) != 0 {
		t.Errorf("saved: %v", saved)
	}
	if _, err := os.Stat(filepath.Join(dir, "sysctl.json.bad")); err != nil {
		t.Error(err)
	}
}
