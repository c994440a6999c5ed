package gate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// The lock is a POSIX record lock (fcntl(2)), not flock(2)'s: asking for it takes nothing, so that whoever
// looks keeps nobody from starting, and the kernel itself says which process has it. The process
// id in the file is for people.

// acquire takes the lock. The file is nil when another process has it; closing it gives the lock
// back, as does the end of the process.
func acquire(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, err
		}
		whole := unix.Flock_t{Type: unix.F_WRLCK}
		err = unix.FcntlFlock(f.Fd(), unix.F_SETLK, &whole)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
			return nil, f.Close()
		case err != nil:
			return nil, errors.Join(fmt.Errorf("cannot lock %q: %w", path, err), f.Close())
		}
		if same, err := leadsTo(path, f); same {
			return f, inscribe(f)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, errors.Join(err, f.Close())
		}
		if err := f.Close(); err != nil { // somebody removed it before we had it
			return nil, err
		}
	}
}

func inscribe(f *os.File) error {
	err := f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return err
}

// leadsTo tells whether the path leads to the file; it is an error when it leads nowhere.
func leadsTo(path string, f *os.File) (bool, error) {
	there, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	mine, err := f.Stat()
	return err == nil && os.SameFile(mine, there), err
}

// holder returns the id of the process that has the lock, 0 if none has.
func holder(path string) (int, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	whole := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &whole); err != nil {
		return 0, fmt.Errorf("cannot look at the lock of %q: %w", path, err)
	}
	switch {
	case whole.Type == unix.F_UNLCK:
		return 0, nil
	case whole.Pid <= 0:
		return 0, fmt.Errorf("the lock of %q is held by a process that can't be seen from here", path)
	}
	return int(whole.Pid), nil
}
