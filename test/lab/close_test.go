package lab

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// assertNothingLeft looks for what a closed lab might have left anywhere.
func assertNothingLeft(t *testing.T, prefix string) {
	t.Helper()
	for _, pattern := range []string{filepath.Join(netnsDir, prefix+"*"), filepath.Join(baseDir, prefix+"*"), "/sys/class/net/" + prefix + "*"} {
		if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
	// No process, of another lab either, may hold a mount of ours: it would keep a namespace alive.
	mounts, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range mounts {
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), "/"+prefix) {
			t.Errorf("%s still has a mount of lab %s", path, prefix)
		}
	}
}

// processesOf lists the processes in a lab's network namespaces.
func processesOf(t *testing.T, prefix string) []int {
	return processesInNamed(t, namespacesOf(prefix)...)
}

func processesInNamed(t *testing.T, names ...string) []int {
	t.Helper()
	pids, err := processesIn(netInodes(names), "/none")
	if err != nil {
		t.Fatal(err)
	}
	return pids
}

func assertGone(t *testing.T, pids []int) {
	t.Helper()
	for _, pid := range pids {
		if _, err := startTime(pid); err == nil {
			t.Errorf("process %d lives on", pid)
		}
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	t.Parallel()
	l := Start(t, Options{})
	ctx := testContext(t)
	g, err := l.AddGuest(ctx, "one")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.DHCP(ctx); err != nil {
		t.Fatal(err)
	}
	// A daemon that escapes its session, as a careless child of gangwayd may.
	if _, err := l.Laptop.Run(ctx, "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 </dev/null &"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Laptop.Capture(context.Background(), "eth0"); err != nil {
		t.Fatal(err)
	}
	pids := processesOf(t, l.Prefix())
	if len(pids) < 6 { // bus, polkitd, NetworkManager, two dnsmasq, dhcpcd, sleep
		t.Fatalf("only %d processes found", len(pids))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	assertGone(t, pids)
	assertNothingLeft(t, l.Prefix())
	if err := l.Close(); err != nil {
		t.Error("closing again:", err)
	}
}

func TestFailedStartLeavesNothing(t *testing.T) {
	t.Parallel()
	// The laptop fails while the sites are being built.
	_, err := New(testContext(t), Options{Sysctl: map[string]string{"net.no.such": "1"}})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("want an error about the sysctl, got %v", err)
	}
	_, rest, _ := strings.Cut(err.Error(), `"`)
	prefix, _, _ := strings.Cut(rest, `"`)
	if !strings.HasPrefix(prefix, "gwl") {
		t.Fatalf("no prefix in %q", err)
	}
	assertNothingLeft(t, prefix)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New(ctx, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("want canceled, got %v", err)
	}
}

// held starts a process that holds a lab, and returns it, its lab's prefix and the processes in the lab.
func held(t *testing.T, arg string) (*exec.Cmd, string, []int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], arg)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // dead already, if the test got that far
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	prefix := strings.TrimSpace(line)
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	pids := processesOf(t, prefix)
	if len(pids) < 5 {
		t.Fatalf("sweeping took the processes of a lab whose owner lives: %v", pids)
	}
	return cmd, prefix, pids
}

func TestSweepAfterCrash(t *testing.T) {
	t.Parallel()
	cmd, prefix, pids := held(t, argHold)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	for _, pid := range pids {
		if _, err := startTime(pid); err != nil {
			t.Fatalf("process %d died with the owner: this test tests nothing", pid)
		}
	}
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	assertGone(t, pids)
	assertNothingLeft(t, prefix)
}

func TestInterruptCloses(t *testing.T) {
	t.Parallel()
	cmd, prefix, pids := held(t, argSignal)
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // its state is looked at below
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the interrupted process does not end")
	}
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != unix.SIGINT {
		t.Errorf("process ended by %v, want SIGINT", cmd.ProcessState)
	}
	assertGone(t, pids)
	assertNothingLeft(t, prefix)
}
