package gate

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gangway/service/plan"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	childMark   = "GANGWAY_GATE_TEST_CHILD"
	starterMark = "GANGWAY_GATE_TEST_STARTER"
)

// TestMain is also the watchdog's main function, and that of a process that starts one.
func TestMain(m *testing.M) {
	if os.Args[0] == Name {
		if err := Main(os.Args[1:], slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv(starterMark); dir != "" {
		g, err := New(Options{RuntimeDir: dir})
		if err == nil {
			err = g.Apply(context.Background(), []plan.Op{plan.StartGate{}})[0].Err
		}
		fmt.Println("started", err)
		select {}
	}
	os.Exit(m.Run())
}

// isolated runs the calling test again, as the first process of namespaces of its own, with which
// all others end, whatever happens. It is true in that process. Needs root.
func isolated(t *testing.T) bool {
	t.Helper()
	if os.Getenv(childMark) == t.Name() {
		must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		must(t, unix.Mount("proc", "/proc", "proc", 0, ""))
		ip(t, "link", "set", "lo", "up")
		return true
	}
	t.Parallel()
	run := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1",
		"-test.timeout="+flag.Lookup("test.timeout").Value.String())
	run.Env = append(os.Environ(), childMark+"="+t.Name())
	run.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	run.Stdout, run.Stderr = &out, &out
	runtime.LockOSThread() // the child dies with the thread
	defer runtime.UnlockOSThread()
	err := run.Run()
	if err != nil || !strings.Contains(out.String(), "--- PASS: "+t.Name()) {
		t.Fatalf("in its own namespaces: %v\n%s", err, out.String())
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

func ip(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// eventually polls until the condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s\n%s", what, ip(t, "-o", "link"))
		}
		time.Sleep(500 * time.Microsecond)
	}
}

// lab is the user's bridge br0 with the cables that the test plugs in, and rooms of one directory.
type lab struct {
	*testing.T
	dir string
}

func newLab(t *testing.T) *lab {
	l := &lab{T: t, dir: filepath.Join(t.TempDir(), "run")}
	ip(t, "link", "add", "br0", "up", "type", "bridge")
	return l
}

// cable makes a port of br0 and plugs it in.
func (l *lab) cable(name string) {
	ip(l, "link", "add", name, "type", "veth", "peer", "name", name+"x")
	ip(l, "link", "set", name, "up", "master", "br0")
	l.plug(name, true)
}

func (l *lab) plug(name string, in bool) {
	state := "down"
	if in {
		state = "up"
	}
	ip(l, "link", "set", name+"x", state)
}

// pair makes the network's IPv6-only link, whose outer end is a port of br0, and down.
func (l *lab) pair(network string) (outer string) {
	inner, outer := plan.PairNames(network)
	group := strconv.Itoa(plan.GroupPair)
	ip(l, "link", "add", inner, "group", group, "type", "veth", "peer", "name", outer, "group", group)
	ip(l, "link", "set", inner, "alias", plan.InnerAliasPrefix+network, "up")
	ip(l, "link", "set", outer, "alias", plan.OuterAliasPrefix+network, "master", "br0")
	return outer
}

func (l *lab) flags(name string) uint32 {
	l.Helper()
	link, err := netlink.LinkByName(name)
	must(l, err)
	return link.Attrs().RawFlags
}

func (l *lab) up(name string) bool      { l.Helper(); return l.flags(name)&unix.IFF_UP != 0 }
func (l *lab) carrier(name string) bool { l.Helper(); return l.flags(name)&unix.IFF_LOWER_UP != 0 }

// await expects the outer end to be up or down soon, and the bridge's carrier to be so, too.
func (l *lab) await(outer string, open bool) {
	l.Helper()
	eventually(l, fmt.Sprintf("%s up: %v", outer, open), func() bool { return l.up(outer) == open })
	eventually(l, fmt.Sprintf("carrier of br0: %v", open), func() bool { return l.carrier("br0") == open })
}

// room is one as each new process has.
func (l *lab) room() *Gate {
	l.Helper()
	g, err := New(Options{RuntimeDir: l.dir, Log: slog.New(slog.NewTextHandler(l.Output(), nil))})
	must(l, err)
	l.Cleanup(g.Close)
	return g
}

func (l *lab) apply(g *Gate, ops ...plan.Op) {
	l.Helper()
	for i, o := range g.Apply(l.Context(), ops) {
		if o.Err != nil {
			l.Errorf("%s: %v", ops[i], o.Err)
		}
	}
}

func (l *lab) running(g *Gate) bool {
	l.Helper()
	running, err := g.Observe(l.Context())
	must(l, err)
	return running
}

// pid is the watchdog's, 0 if none runs.
func (l *lab) pid() int {
	l.Helper()
	pid, err := holder(lockPath(l.dir))
	must(l, err)
	return pid
}

// living is pid, of somebody: a signal to 0 is one to all of us.
func (l *lab) living() int {
	l.Helper()
	pid := l.pid()
	if pid <= 0 {
		l.Fatal("nobody has the lock")
	}
	return pid
}

// watchdogs lists all processes that are one, also those that have ended and wait to be reaped.
func (l *lab) watchdogs() (pids []int) {
	l.Helper()
	comms, err := filepath.Glob("/proc/[0-9]*/comm")
	must(l, err)
	for _, path := range comms {
		if b, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(b)) == Name {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			must(l, err)
			pids = append(pids, pid)
		}
	}
	return pids
}
