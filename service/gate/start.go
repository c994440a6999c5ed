package gate

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// startDeadline bounds a start, stopGrace how long the watchdog may take to end by itself.
	startDeadline = 5 * time.Second
	stopGrace     = 2 * time.Second
	// startPoll is how often a start looks whether the lock is taken.
	startPoll = 2 * time.Millisecond
)

// start returns when a watchdog has the lock: that which we started, or that of somebody who was faster.
func (g *Gate) start(ctx context.Context) error {
	p, err := g.find()
	if p != nil {
		return nil
	}
	if err == nil {
		err = os.MkdirAll(g.dir, 0o755)
	}
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, startDeadline)
		defer cancel()
		err = g.spawn(ctx)
	}
	if err != nil {
		return fmt.Errorf("cannot start the gate: %w", err)
	}
	return nil
}

func (g *Gate) spawn(ctx context.Context) error {
	// What we were started with may be open without our knowing; our own files are closed
	// on execution anyway. An older kernel (before 5.11) lets the watchdog have it.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	cmd := exec.Command(g.executable)
	cmd.Args = append([]string{Name, g.dir}, g.args...)
	// Small: one processor, and a heap that is collected long before it is large.
	cmd.Env = []string{"GOMAXPROCS=1", "GOGC=25", "GOMEMLIMIT=16MiB"}
	if stream, ok := os.LookupEnv("JOURNAL_STREAM"); ok {
		cmd.Env = append(cmd.Env, "JOURNAL_STREAM="+stream)
	}
	cmd.Dir = "/"
	if lasts(os.Stderr) {
		cmd.Stderr = os.Stderr
	}
	// A session of its own: a terminal's signals are not for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	// Reaped by whoever comes first, this or wait.
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	err := g.await(ctx, cmd.Process.Pid, exited)
	if err != nil {
		_ = cmd.Process.Kill()
		<-exited
		return err
	}
	return nil
}

// await returns when the child has the lock, or has ended because another has it: as long as
// it is undecided, the child might take the lock of one that is stopped in the meantime.
func (g *Gate) await(ctx context.Context, child int, exited <-chan struct{}) error {
	tick := time.NewTicker(startPoll)
	defer tick.Stop()
	for {
		ended := false
		select {
		case <-exited:
			ended = true
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("it has not taken its lock: %w", ctx.Err())
		}
		p, err := g.find()
		switch {
		case err != nil:
			return err
		case p != nil && p.pid == child:
			g.log.Info("gate started", "pid", p.pid)
			return nil
		case ended && p != nil:
			return nil
		case ended:
			return errors.New("it ended, and nobody has its lock")
		}
	}
}

// lasts tells whether a file may be handed to the watchdog. Not a pipe: whoever reads from it would
// wait for the watchdog's end, too.
func lasts(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeNamedPipe == 0
}

// stop returns when nobody has the lock.
func (g *Gate) stop(ctx context.Context) error {
	p, err := g.find()
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err == nil && p != nil {
			err = p.signal(sig)
		}
		if err != nil {
			return fmt.Errorf("cannot stop the gate: %w", err)
		}
		if p == nil {
			return nil
		}
		select {
		case <-p.exited:
			return nil
		case <-time.After(stopGrace):
		case <-ctx.Done():
			return fmt.Errorf("cannot stop the gate: %w", ctx.Err())
		}
	}
	return fmt.Errorf("cannot stop the gate: process %d survived SIGKILL", p.pid)
}
