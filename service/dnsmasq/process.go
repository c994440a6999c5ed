package dnsmasq

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// server is a running dnsmasq, started by us or by a process before us.
type server struct {
	record
	// pidfd means this process alone, whatever becomes of its id.
	pidfd *os.File
	// command is set when it is our child, which has to be reaped.
	command *exec.Cmd
	exited  chan struct{}
	// ending is set when its end is wanted.
	ending atomic.Bool
}

func newServer(rec record, pidfd int, command *exec.Cmd) (*server, error) {
	// os.File waits with the runtime's poller only for descriptors that don't block.
	if err := unix.SetNonblock(pidfd, true); err != nil {
		unix.Close(pidfd)
		return nil, fmt.Errorf("cannot watch process %d: %w", rec.PID, err)
	}
	return &server{record: rec, pidfd: os.NewFile(uintptr(pidfd), "pidfd"), command: command,
		exited: make(chan struct{})}, nil
}

func (s *server) running() bool {
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}

// wait returns when the process has ended, after calling then, or when it is released.
func (s *server) wait(then func()) {
	conn, err := s.pidfd.SyscallConn()
	if err == nil {
		err = conn.Read(hasEnded)
	}
	if err != nil {
		return // released
	}
	if s.command != nil {
		_ = s.command.Wait() // how it ended is in its log
	}
	s.pidfd.Close()
	close(s.exited)
	then()
}

// hasEnded tells whether a pidfd's process has ended: it is readable then (pidfd_open(2)).
func hasEnded(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err != nil || n > 0
		}
	}
}

// release stops watching the process and leaves it alone.
func (s *server) release() { s.pidfd.Close() }

func (s *server) signal(sig syscall.Signal) error {
	conn, err := s.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) { failed = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	if err != nil || errors.Is(failed, unix.ESRCH) {
		return nil // closed or gone: it has ended
	}
	return failed
}

// end makes the process end and waits for that, a little longer than stopGrace at most.
func (s *server) end() error {
	s.ending.Store(true)
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := s.signal(sig); err != nil {
			return fmt.Errorf("cannot end dnsmasq of %q: %w", s.Network, err)
		}
		select {
		case <-s.exited:
			return nil
		case <-time.After(stopGrace):
		}
	}
	return fmt.Errorf("cannot end dnsmasq of %q: process %d survived SIGKILL", s.Network, s.PID)
}

// adopt takes over the process of the record if it is alive and proves to be the
// network's server; nil if not. A start time of 0 means any.
func (r *Room) adopt(rec record) *server {
	if rec.PID <= 1 {
		return nil
	}
	// First the descriptor, then the proof: if the process is still there afterwards, what
	// /proc said was about it.
	fd, err := unix.PidfdOpen(rec.PID, 0)
	if err != nil {
		return nil
	}
	start, err := startTime(rec.PID)
	if err != nil || rec.Start != 0 && rec.Start != start || !r.isServer(rec.PID, rec.Network) || hasEnded(uintptr(fd)) {
		unix.Close(fd)
		return nil
	}
	rec.Start = start
	s, err := newServer(rec, fd, nil)
	if err != nil {
		return nil
	}
	return s
}

// isServer tells whether the process runs dnsmasq with the network's configuration,
// as root or dnsmasq's user, in our network namespace. A command line alone
// would prove nothing, since anybody can have any.
func (r *Room) isServer(pid int, network string) bool {
	dir := "/proc/" + strconv.Itoa(pid)
	line, err := os.ReadFile(dir + "/cmdline")
	if err != nil {
		return false
	}
	args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	if len(args) != 2 || args[1] != configOption+r.files(network).config || filepath.Base(args[0]) != filepath.Base(r.program) {
		return false
	}
	namespace, err := os.Readlink(dir + "/ns/net")
	if err != nil || namespace != r.namespace {
		return false
	}
	uid, err := realUser(pid)
	return err == nil && (uid == 0 || uid == r.account.uid)
}

// configOption and the configuration's path are all of a server's arguments.
const configOption = "--conf-file="

// startTime returns a process's start time in clock ticks since boot; an error if it
// has ended, even if nobody has reaped it yet.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// proc(5): "pid (comm) state ppid …", and comm may hold anything, even ") ".
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	const state, start = 3 - 3, 22 - 3
	if len(fields) <= start || fields[state] == "Z" || fields[state] == "X" {
		return 0, fmt.Errorf("process %d has ended", pid)
	}
	return strconv.ParseUint(fields[start], 10, 64)
}

func realUser(pid int) (uint32, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Uid:"); ok {
			uid, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 32)
			return uint32(uid), err
		}
	}
	return 0, fmt.Errorf("process %d has no user", pid)
}
