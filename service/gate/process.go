package gate

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// process is a watchdog that runs, a child of ours, of a process before us or of this one's former
// image.
type process struct {
	pid int
	// pidfd means this process alone, whatever becomes of its id.
	pidfd  *os.File
	exited chan struct{}
}

// open returns the process with the id, nil if there is none.
func open(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot watch process %d: %w", pid, err)
	}
	return &process{pid: pid, pidfd: os.NewFile(uintptr(fd), "pidfd"), exited: make(chan struct{})}, nil
}

// wait returns true when the process has ended, after reaping it, and false when it is released.
func (p *process) wait() (ended bool) {
	conn, err := p.pidfd.SyscallConn()
	if err == nil {
		err = conn.Read(hasEnded)
	}
	if err != nil {
		return false
	}
	// Only our child can be reaped, which it may be without our knowing: a process that executes
	// itself anew keeps its children.
	_ = conn.Control(func(fd uintptr) { _ = unix.Waitid(unix.P_PIDFD, int(fd), nil, unix.WEXITED|unix.WNOHANG, nil) })
	p.pidfd.Close()
	close(p.exited)
	return true
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

func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// release stops looking after the process and leaves it alone.
func (p *process) release() { p.pidfd.Close() }

func (p *process) signal(sig syscall.Signal) error {
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return nil // closed: it has ended
	}
	var failed error
	err = conn.Control(func(fd uintptr) { failed = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	if err != nil || errors.Is(failed, unix.ESRCH) {
		return nil
	}
	return failed
}
