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
	// dhcpcd loses a signal now and then while it runs a hook: it is told again.
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		// The process may have ended; Signal knows, as it is our child.
		if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("cannot signal %q: %w", p.name, err)
		}
		select {
		case <-p.done:
			return nil
		case <-again.C:
		case <-ctx.Done():
			err := fmt.Errorf("cannot stop %q by %s: %w", p.name, sig, context.Cause(ctx))
			return errors.Join(err, p.cmd.Process.Kill())
		}
	}
}

func (l *Lab) logPath(name string) string { return filepath.Join(l.dir, "log", name+".log") }

// Log returns what the part of that name has written so far: "bus", "polkit", "networkmanager",
// "gangwayd", "router-SITE", "radvd-router-SITE", "dhcp-GUEST".
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

// killAll kills every process, but this one, in the network namespaces of those names or with a mount from dir, until
// none is left. It gives up after ten seconds. The names must still exist: a process that has changed its root,
// as dhcpcd's helpers do, shows no mount of ours.
func killAll(names []string, dir string) error {
	inodes := netInodes(names)
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
		return fmt.Errorf("cannot kill the processes of %q: %w", dir, err)
	}
	return nil
}

// netInodes returns the inodes of those of the named namespaces that exist.
func netInodes(names []string) map[uint64]bool {
	inodes := map[uint64]bool{}
	for _, name := range names {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(netnsDir, name), &st) == nil {
			inodes[st.Ino] = true
		}
	}
	return inodes
}

// namespacesOf lists the names of a lab's network namespaces.
func namespacesOf(prefix string) []string {
	paths, _ := filepath.Glob(filepath.Join(netnsDir, prefix+"-*")) // the pattern is well-formed
	for i := range paths {
		paths[i] = filepath.Base(paths[i])
	}
	return paths
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
