package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is a daemon of the lab. Its output goes to the log of that name.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// spawn starts a daemon on a host. It lives until stopped or until the lab is closed.
func (l *Lab) spawn(h *Host, name string, args ...string) (*process, error) {
	return l.spawnWith(h, name, nil, args...)
}

// spawnWith is spawn with files that the daemon gets as descriptors 3 and up.
func (l *Lab) spawnWith(h *Host, name string, files []*os.File, args ...string) (*process, error) {
	log, err := os.OpenFile(l.logPath(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot open log of %q: %w", name, err)
	}
	defer log.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, files
	if err := h.Start(cmd); err != nil {
		return nil, fmt.Errorf("cannot start %q on %q: %w", args[0], h.Name, err)
	}
	p := &process{name: name, cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // how it ended is in cmd.ProcessState
	}()
	return p, nil
}

// alive reports an error that says how the process ended, if it has.
func (p *process) alive() error {
	select {
	case <-p.done:
		return final{fmt.Errorf("%s ended: %s", p.name, p.cmd.ProcessState)}
	default:
		return nil
	}
}

// stop sends the signal and waits for the end; when ctx ends first, SIGKILL follows.
func (p *process) stop(ctx context.Context, sig unix.Signal) error {
	if p == nil {
		return nil
	}
	// The process may have ended; Signal knows, as it is our child.
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("cannot signal %q: %w", p.name, err)
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		err := fmt.Errorf("cannot stop %q by %s: %w", p.name, sig, context.Cause(ctx))
		return errors.Join(err, p.cmd.Process.Kill())
	}
}

func (l *Lab) logPath(name string) string { return filepath.Join(l.dir, "log", name+".log") }

// Log returns what the part of that name has written so far: "bus", "polkit", "networkmanager",
// "gangwayd", "router-SITE", "dhcp-GUEST".
func (l *Lab) Log(name string) (string, error) {
	b, err := os.ReadFile(l.logPath(name))
	if err != nil {
		return "", fmt.Errorf("cannot read log of %q: %w", name, err)
	}
	return string(b), nil
}

// DumpLogs writes the last max bytes of every log.
func (l *Lab) DumpLogs(w io.Writer, max int) {
	paths, _ := filepath.Glob(l.logPath("*")) // the pattern is well-formed
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			fmt.Fprintln(w, err)
			continue
		}
		if len(b) > max {
			b = b[len(b)-max:]
		}
		fmt.Fprintf(w, "--- %s\n%s\n", filepath.Base(path), b)
	}
}

// killAll kills every process, but this one, in a network namespace of that name prefix or with a mount from dir,
// until none is left. It gives up after ten seconds.
func killAll(prefix, dir string) error {
	inodes := map[uint64]bool{}
	paths, _ := filepath.Glob(filepath.Join(netnsDir, prefix+"-*")) // the pattern is well-formed
	for _, path := range paths {
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil {
			inodes[st.Ino] = true
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	dying := map[int]string{} // by start time: a process leaves its namespaces before it is gone
	err := poll(ctx, func() (bool, error) {
		pids, err := processesIn(inodes, dir)
		for _, pid := range pids {
			start, err := startTime(pid)
			if err != nil {
				continue // gone meanwhile
			}
			dying[pid] = start
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return false, err
			}
		}
		for pid, start := range dying {
			if now, err := startTime(pid); err != nil || now != start {
				delete(dying, pid)
			}
		}
		return len(pids) == 0 && len(dying) == 0, err
	})
	if err != nil {
		return fmt.Errorf("cannot kill the processes of lab %q: %w", prefix, err)
	}
	return nil
}

func processesIn(netInodes map[uint64]bool, dir string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// Processes come and go while we look; a zombie has no namespaces any more.
		var st unix.Stat_t
		if unix.Stat(filepath.Join("/proc", e.Name(), "ns/net"), &st) == nil && netInodes[st.Ino] {
			pids = append(pids, pid)
			continue
		}
		if mounts, err := os.ReadFile(filepath.Join("/proc", e.Name(), "mountinfo")); err == nil && strings.Contains(string(mounts), " "+dir+"/") {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
