package lab

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// onThread runs f on an operating-system thread that ends with it, so that f may change the thread's
// namespaces and credentials for good. It waits for f.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		// The main thread cannot end, and its namespaces are what others see as the process's.
		// Hold it, so that the scheduler has to take another.
		if unix.Gettid() == unix.Getpid() {
			done <- onThread(f)
			runtime.UnlockOSThread()
			return
		}
		err := errors.New("function ended its goroutine (FailNow in a namespace?)")
		defer func() { done <- err }()
		err = f()
	}()
	return <-done
}

// enter puts the calling thread, which must be one of onThread's, into the namespaces; mnt may be nil.
func enter(net, mnt *os.File) error {
	if mnt != nil {
		// A thread that shares its working directory with others may not change its mount namespace.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("cannot unshare the working directory: %w", err)
		}
		if err := unix.Setns(int(mnt.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("cannot enter mount namespace: %w", err)
		}
	}
	if err := unix.Setns(int(net.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("cannot enter network namespace %q: %w", net.Name(), err)
	}
	return nil
}
