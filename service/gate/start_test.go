package gate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gangway/service/plan"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestStartAndStop(t *testing.T) {
	if !isolated(t) {
		return
	}
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	l := newLab(t)
	g := l.room()
	if l.running(g) {
		t.Error("runs before it is started")
	}
	if _, err := os.Stat(l.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a look made the directory: %v", err)
	}
	l.cable("eth0")
	outer := l.pair("default")
	for range 2 {
		l.apply(g, plan.StartGate{})
		pid := l.pid()
		l.apply(g, plan.StartGate{})
		if !l.running(g) || l.pid() != pid || !slices.Equal(l.watchdogs(), []int{pid}) {
			t.Errorf("started twice: %d, %d of %v", pid, l.pid(), l.watchdogs())
		}
		l.await(outer, true)
		if text, err := os.ReadFile(lockPath(l.dir)); err != nil || string(text) != strconv.Itoa(pid)+"\n" {
			t.Errorf("the lock file says %q, %v", text, err)
		}
		for range 2 {
			l.apply(g, plan.StopGate{})
			if l.running(g) || l.pid() != 0 || len(l.watchdogs()) != 0 {
				t.Errorf("stopped: %d, %v", l.pid(), l.watchdogs())
			}
		}
		if !l.up(outer) {
			t.Error("its end changed a link")
		}
		ip(t, "link", "set", outer, "down")
	}
	if err := g.Apply(t.Context(), []plan.Op{plan.StopServer{}})[0].Err; err == nil || !strings.Contains(err.Error(), "gate room") {
		t.Errorf("another room's operation: %v", err)
	}
}

func TestManyStartersMakeOne(t *testing.T) {
	if !isolated(t) {
		return
	}
	l := newLab(t)
	for range 5 {
		var all sync.WaitGroup
		for range 2 {
			starter, started := l.starter(os.Stderr)
			all.Go(started)
			t.Cleanup(func() {
				_ = starter.Process.Kill()
				_ = starter.Wait()
			})
		}
		var rooms []*Gate
		for range 3 {
			g := l.room()
			rooms = append(rooms, g)
			all.Go(func() { l.apply(g, plan.StartGate{}) })
		}
		all.Wait()
		eventually(t, "one watchdog", func() bool { return slices.Equal(l.watchdogs(), []int{l.pid()}) })
		for _, g := range rooms {
			if !l.running(g) {
				t.Error("a room doesn't see it")
			}
		}
		for _, g := range rooms {
			all.Go(func() { l.apply(g, plan.StopGate{}) })
		}
		all.Wait()
		eventually(t, "none, when other processes have reaped theirs", func() bool { return len(l.watchdogs()) == 0 })
	}
}

// One that comes late must not take the lock of one that was stopped in the meantime, and run
// when nobody wants it any more: a start waits until its own child has made up its mind.
func TestLateOneDoesNotComeBack(t *testing.T) {
	if !isolated(t) {
		return
	}
	l := newLab(t)
	dir := t.TempDir()
	late := filepath.Join(dir, "late")
	script := "#!/bin/bash\necho $$ > " + dir + "/pid\nuntil test -e " + dir + "/go; do sleep 0.01; done\nexec -a " + Name + " /proc/" +
		strconv.Itoa(os.Getpid()) + "/exe \"$@\"\n"
	must(t, os.WriteFile(late, []byte(script), 0o755))
	slow, err := New(Options{RuntimeDir: l.dir, Executable: late})
	must(t, err)
	t.Cleanup(slow.Close)
	outcome := make(chan error, 1)
	go func() { outcome <- slow.Apply(context.Background(), []plan.Op{plan.StartGate{}})[0].Err }()
	child := 0
	eventually(t, "the late one", func() bool {
		text, err := os.ReadFile(dir + "/pid")
		child, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil && child > 0
	})
	quick := l.room()
	l.apply(quick, plan.StartGate{})
	eventually(t, "the slow room sees the quick one", func() bool { slow.mu.Lock(); defer slow.mu.Unlock(); return slow.known != nil })
	must(t, os.WriteFile(dir+"/go", nil, 0o644))
	must(t, <-outcome)
	if l.pid() == child {
		t.Error("took the lock of one that ran")
	}
	if err := unix.Kill(child, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("the late one is still about: %v", err)
	}
}

func TestOneThatHangsIsKilled(t *testing.T) {
	if !isolated(t) {
		return
	}
	l := newLab(t)
	g := l.room()
	l.apply(g, plan.StartGate{})
	must(t, unix.Kill(l.living(), unix.SIGSTOP))
	l.apply(g, plan.StopGate{})
	if l.running(g) || len(l.watchdogs()) != 0 {
		t.Errorf("still there: %v", l.watchdogs())
	}
}

// The id in the file is for people: whoever has it may be anybody by now.
func TestTheLockSaysWhoItIs(t *testing.T) {
	if !isolated(t) {
		return
	}
	l := newLab(t)
	innocent := exec.Command("sleep", "infinity")
	must(t, innocent.Start())
	must(t, os.Mkdir(l.dir, 0o755))
	must(t, os.WriteFile(lockPath(l.dir), []byte(fmt.Sprintln(innocent.Process.Pid)), 0o644))
	g := l.room()
	if l.running(g) {
		t.Error("took the file's word")
	}
	l.apply(g, plan.StopGate{})
	must(t, innocent.Process.Signal(syscall.Signal(0)))
	l.apply(g, plan.StartGate{}, plan.StopGate{})
	must(t, innocent.Process.Kill())
	if err := innocent.Wait(); err.Error() != "signal: killed" {
		t.Error(err)
	}
}

func TestStartFails(t *testing.T) {
	if !isolated(t) {
		return
	}
	l := newLab(t)
	start := func(o Options, words ...string) {
		t.Helper()
		g, err := New(o)
		must(t, err)
		t.Cleanup(g.Close)
		err = g.Apply(t.Context(), []plan.Op{plan.StartGate{}})[0].Err
		for _, w := range append(words, "cannot start the gate") {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("error %v lacks %q", err, w)
			}
		}
	}
	start(Options{RuntimeDir: l.dir, Executable: "/usr/bin/true"}, "it ended")
	start(Options{RuntimeDir: l.dir, Executable: "/absent"}, "/absent")
	sleeper := filepath.Join(t.TempDir(), "sleeper")
	must(t, os.WriteFile(sleeper, []byte("#!/bin/sh\nexec sleep 1000\n"), 0o755))
	began := time.Now()
	start(Options{RuntimeDir: l.dir, Executable: sleeper}, "deadline")
	if took := time.Since(began); took > 10*startDeadline {
		t.Errorf("gave up after %s", took)
	}
	must(t, os.RemoveAll(l.dir))
	must(t, os.WriteFile(l.dir, nil, 0o600))
	start(Options{RuntimeDir: l.dir}, "not a directory")
	if _, err := New(Options{}); err == nil {
		t.Error("a room without a directory")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.room().Apply(ctx, []plan.Op{plan.StartGate{}})[0].Err; !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
	if err := Run(t.Context(), filepath.Join(l.dir, "absent"), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("ran without its directory")
	}
}
