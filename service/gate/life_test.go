package gate

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gangway/service/plan"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// starter is another process that starts a watchdog, and then does nothing.
func (l *lab) starter(stderr *os.File) (cmd *exec.Cmd, started func()) {
	l.Helper()
	cmd = exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), starterMark+"="+l.dir)
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	must(l, err)
	must(l, cmd.Start())
	return cmd, func() {
		l.Helper()
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "started <nil>\n" {
			l.Errorf("it says %q, %v", line, err)
		}
	}
}

func TestItOutlivesWhoStartedIt(t *testing.T) {
	if !isolated(t) {
		return
	}
	l := newLab(t)
	l.cable("eth0")
	outer := l.pair("default")
	starter, started := l.starter(os.Stderr)
	started()
	l.await(outer, true)
	must(t, starter.Process.Kill())
	_ = starter.Wait()
	l.plug("eth0", false)
	l.await(outer, false)
	l.plug("eth0", true)
	l.await(outer, true)

	pid := l.pid()
	g := l.room() // the next daemon's
	before := goleak.IgnoreCurrent()
	for range 2 {
		if !l.running(g) {
			t.Error("not found")
		}
		g.Close()
		goleak.VerifyNone(t, before)
	}
	l.apply(g, plan.StartGate{})
	if !slices.Equal(l.watchdogs(), []int{pid}) {
		t.Errorf("watchdogs %v instead of %d", l.watchdogs(), pid)
	}
	l.apply(g, plan.StopGate{})
	if len(l.watchdogs()) != 0 {
		t.Errorf("after the stop: %v", l.watchdogs())
	}
}

// What is left of the daemon in the watchdog.
func TestItKeepsNothingOfTheDaemon(t *testing.T) {
	if !isolated(t) {
		return
	}
	l := newLab(t)
	leak, err := unix.Open(t.TempDir(), unix.O_RDONLY|unix.O_DIRECTORY, 0) // without O_CLOEXEC
	must(t, err)
	defer unix.Close(leak)
	t.Setenv("SECRET", "x")
	l.apply(l.room(), plan.StartGate{})
	pid := l.pid()
	proc := "/proc/" + strconv.Itoa(pid) + "/"
	eventually(t, "its name", func() bool {
		comm, err := os.ReadFile(proc + "comm")
		return err == nil && string(comm) == Name+"\n"
	})
	line, err := os.ReadFile(proc + "cmdline")
	must(t, err)
	if string(line) != Name+"\x00"+l.dir+"\x00" {
		t.Errorf("command line %q", line)
	}
	if environ, err := os.ReadFile(proc + "environ"); err != nil || strings.Contains(string(environ), "SECRET") {
		t.Errorf("environment %q, %v", environ, err)
	}
	if cwd, err := os.Readlink(proc + "cwd"); err != nil || cwd != "/" {
		t.Errorf("working directory %q, %v", cwd, err)
	}
	if sid, err := unix.Getsid(pid); err != nil || sid != pid {
		t.Errorf("session %d, %v", sid, err)
	}
	files, err := os.ReadDir(proc + "fd")
	must(t, err)
	for _, f := range files {
		to, err := os.Readlink(proc + "fd/" + f.Name())
		n, _ := strconv.Atoi(f.Name())
		own := to == lockPath(l.dir) || strings.HasPrefix(to, "anon_inode:[event") || strings.HasPrefix(to, "socket:") ||
			strings.HasPrefix(to, "/sys/fs/cgroup/") // Go's runtime
		if err == nil && (n < 3 && to != os.DevNull || n >= 3 && !own) {
			t.Errorf("file %d is %s", n, to) // the test's own standard error is a pipe
		}
	}
	status, err := os.ReadFile(proc + "status")
	must(t, err)
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "Rss") || strings.HasPrefix(line, "Threads") {
			t.Log(strings.Join(strings.Fields(line), " "))
		}
	}
}

// A file is handed on, as is the journal's socket, whose other end may go; a pipe isn't.
func TestItsMessages(t *testing.T) {
	if !isolated(t) {
		return
	}
	l := newLab(t)
	l.cable("eth0")
	outer := l.pair("default")
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	must(t, err)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	journal := os.NewFile(uintptr(fds[1]), "journal")
	reader, pipe, err := os.Pipe()
	must(t, err)
	for _, c := range []struct {
		stderr, reader *os.File
		want           string
	}{{file, nil, file.Name()}, {os.NewFile(uintptr(fds[0]), "stderr"), journal, "socket:"}, {pipe, reader, os.DevNull}} {
		starter, started := l.starter(c.stderr)
		started()
		l.await(outer, true)
		must(t, starter.Process.Kill())
		_ = starter.Wait()
		must(t, c.stderr.Close())
		if c.reader != nil {
			must(t, c.reader.Close())
		}
		pid := l.pid()
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/2", pid)); err != nil || !strings.HasPrefix(to, c.want) {
			t.Errorf("its standard error is %s, not %s", to, c.want)
		}
		for range 2 { // writing twice, for the first may go unnoticed
			l.plug("eth0", false)
			l.await(outer, false)
			l.plug("eth0", true)
			l.await(outer, true)
		}
		l.settle()
		if l.pid() != pid {
			t.Error("it went with its reader")
		}
		l.apply(l.room(), plan.StopGate{})
		ip(t, "link", "set", outer, "down")
	}
	text, err := os.ReadFile(file.Name())
	must(t, err)
	if line := "level=INFO msg=gate network=default interface=" + outer + " bridge=br0 open=false"; !strings.Contains(string(text), line) {
		t.Errorf("no %q in %s", line, text)
	}
}

func TestItsEndIsNoticed(t *testing.T) {
	if !isolated(t) {
		return
	}
	l := newLab(t)
	g := l.room()
	ctx, cancel := context.WithCancel(t.Context())
	pokes, watched := make(chan string, 10), make(chan error)
	go func() { watched <- g.Watch(ctx, func(reason string) { pokes <- reason }) }()
	eventually(t, "the watcher", func() bool { g.mu.Lock(); defer g.mu.Unlock(); return len(g.watchers) == 1 })
	for _, start := range []func(){
		func() { l.apply(g, plan.StartGate{}) },
		func() { // a child of this process before it executed itself anew
			pid, err := syscall.ForkExec("/proc/self/exe", []string{Name, l.dir}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}})
			must(t, err)
			eventually(t, "the lock", func() bool { return l.pid() == pid })
		},
	} {
		start()
		if !l.running(g) {
			t.Fatal("not started")
		}
		must(t, unix.Kill(l.living(), unix.SIGKILL))
		select {
		case <-pokes:
		case <-time.After(30 * time.Second):
			t.Fatal("no poke for its end")
		}
		if l.running(g) {
			t.Error("runs after its end")
		}
		eventually(t, "nothing to reap", func() bool { return len(l.watchdogs()) == 0 })
	}
	cancel()
	must(t, <-watched)
}

func TestItGoesOnWithoutItsExecutable(t *testing.T) {
	if !isolated(t) {
		return
	}
	l := newLab(t)
	l.cable("eth0")
	outer := l.pair("default")
	program := filepath.Join(t.TempDir(), "gangwayd")
	self, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.WriteFile(program, self, 0o755))
	g, err := New(Options{RuntimeDir: l.dir, Executable: program, Args: []string{"-x"}})
	must(t, err)
	t.Cleanup(g.Close)
	l.apply(g, plan.StartGate{})
	must(t, os.Remove(program))
	l.await(outer, true)
	l.plug("eth0", false)
	l.await(outer, false)
	if line, err := os.ReadFile("/proc/" + strconv.Itoa(l.pid()) + "/cmdline"); err != nil || !strings.HasSuffix(string(line), "\x00-x\x00") {
		t.Errorf("command line %q, %v", line, err)
	}
}

// Somebody tidies up: a second watchdog comes, and the first goes as soon as it looks.
func TestLockFileIsRemoved(t *testing.T) {
	if !isolated(t) {
		return
	}
	l := newLab(t)
	l.cable("eth0")
	outer := l.pair("default")
	g := l.room()
	l.apply(g, plan.StartGate{})
	first := l.pid()
	must(t, os.RemoveAll(l.dir))
	l.await(outer, true)
	l.plug("eth0", false)
	l.await(outer, false)
	if l.running(g) {
		t.Error("seen without its lock")
	}
	l.apply(g, plan.StartGate{})
	second := l.pid()
	l.plug("eth0", true)
	l.await(outer, true)
	eventually(t, "the first's end", func() bool { return slices.Equal(l.watchdogs(), []int{second}) })
	if first == second {
		t.Error("no second one")
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	if !isolated(t) {
		return
	}
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, t.TempDir(), slog.New(slog.DiscardHandler)) }()
	cancel()
	must(t, <-ended)
}
