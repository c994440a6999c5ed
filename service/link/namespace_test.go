package link

import (
	"bytes"
	"flag"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"gangway/service/plan"
	"gangway/service/vnet"

	"github.com/vishvananda/netlink"
)

const childMark = "GANGWAY_LINK_TEST_CHILD"

// isolated runs the calling test again, in a process with a network namespace of its own,
// which ends with the process whatever happens. It is true in that process.
// Needs root.
func isolated(t *testing.T) bool {
	t.Helper()
	if os.Getenv(childMark) == t.Name() {
		lo, err := netlink.LinkByName("lo")
		must(t, err)
		must(t, netlink.LinkSetUp(lo))
		return true
	}
	run := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1",
		"-test.timeout="+flag.Lookup("test.timeout").Value.String())
	run.Env = append(os.Environ(), childMark+"="+t.Name())
	run.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	run.Stdout, run.Stderr = &out, &out
	runtime.LockOSThread() // the child dies with the thread
	defer runtime.UnlockOSThread()
	err := run.Run()
	if err != nil || !strings.Contains(out.String(), "--- PASS: "+t.Name()) {
		t.Fatalf("in its own namespace: %v\n%s", err, out.String())
	}
	t.Log(out.String())
	return false
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newKernel(t testing.TB) *Kernel {
	t.Helper()
	return kernelIn(t, filepath.Join(t.TempDir(), "run"))
}

func kernelIn(t testing.TB, dir string) *Kernel {
	t.Helper()
	k := New(Options{RuntimeDir: dir, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	t.Cleanup(k.Close)
	return k
}

func observe(t testing.TB, k *Kernel, keys ...string) vnet.Kernel {
	t.Helper()
	have, err := k.Observe(t.Context(), keys)
	must(t, err)
	return have
}

func findLink(t testing.TB, have vnet.Kernel, name string) vnet.Link {
	t.Helper()
	l, ok := have.LinkByName(name)
	if !ok {
		t.Fatalf("no link %q", name)
	}
	return l
}

// apply expects success.
func apply(t testing.TB, k *Kernel, ops ...plan.Op) {
	t.Helper()
	for i, o := range k.Apply(t.Context(), ops) {
		if o.Err != nil {
			t.Errorf("%s: %v", ops[i], o.Err)
		}
	}
}

// refused expects an error that has all of the words.
func refused(t testing.TB, k *Kernel, op plan.Op, words ...string) {
	t.Helper()
	err := k.Apply(t.Context(), []plan.Op{op})[0].Err
	if err == nil {
		t.Fatalf("%s: succeeded", op)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: error %q lacks %q", op, err, w)
		}
	}
}

// ip runs iproute2, which knows nothing of our code.
func ip(t testing.TB, args ...string) string {
	t.Helper()
	return tool(t, "ip", args...)
}

func bridgeTool(t testing.TB, args ...string) string {
	t.Helper()
	return tool(t, "bridge", args...)
}

func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// eventually polls until the condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func bridgeOp(name string) plan.CreateBridge {
	sum := vnet.BridgeMAC("test", name)
	return plan.CreateBridge{Name: name, MAC: sum.String(), Alias: plan.AliasPrefix + name, MTU: 1500,
		Group: plan.GroupBridge | plan.GroupServices}
}

// veth makes a pair; the first end is down, as a container's is before it is attached.
func veth(t testing.TB, name, peer string) int {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer}))
	p, err := netlink.LinkByName(peer)
	must(t, err)
	must(t, netlink.LinkSetUp(p))
	l, err := netlink.LinkByName(name)
	must(t, err)
	return l.Attrs().Index
}
