package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// baseDir holds one directory per lab. It is not in /run, since the laptop has a /run of its own.
const baseDir = "/tmp/gangway-lab"

var labs atomic.Int64 // made so far by this process

// claim makes the directory of a new lab, in which the owner is recorded from the first moment on.
func claim() (prefix, dir string, err error) {
	if err := os.MkdirAll(baseDir, 0o755); err != nil {
		return "", "", fmt.Errorf("cannot make %q: %w", baseDir, err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(baseDir, &st); err != nil || st.Uid != 0 || st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Mode&0o022 != 0 {
		return "", "", fmt.Errorf("cannot use %q: not a directory that only root may write: %w", baseDir, errors.Join(err, fs.ErrPermission))
	}
	tmp, err := os.MkdirTemp(baseDir, ".new-")
	if err != nil {
		return "", "", fmt.Errorf("cannot make lab directory: %w", err)
	}
	start, err := startTime(os.Getpid())
	if err == nil {
		err = os.WriteFile(filepath.Join(tmp, "owner"), fmt.Appendf(nil, "%d %s\n", os.Getpid(), start), 0o644)
	}
	if err == nil {
		err = os.Chmod(tmp, 0o755)
	}
	if err == nil {
		prefix = "gwl" + strconv.FormatInt(int64(os.Getpid()), 36) + "x" + strconv.FormatInt(labs.Add(1), 36)
		dir = filepath.Join(baseDir, prefix)
		err = os.Rename(tmp, dir)
	}
	if err != nil {
		return "", "", errors.Join(fmt.Errorf("cannot make lab directory: %w", err), os.RemoveAll(tmp))
	}
	return prefix, dir, nil
}

// Sweep removes what labs left behind whose owner process has died.
func Sweep() error {
	entries, err := os.ReadDir(baseDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot list labs: %w", err)
	}
	var errs []error
	for _, e := range entries {
		dir := filepath.Join(baseDir, e.Name())
		switch owner, err := os.ReadFile(filepath.Join(dir, "owner")); {
		case err != nil: // another process is just making or removing it
		case ownerLives(string(owner)):
		case strings.HasPrefix(e.Name(), "."): // died before it made anything
			errs = append(errs, os.RemoveAll(dir))
		default:
			errs = append(errs, remove(e.Name(), dir))
		}
	}
	return errors.Join(errs...)
}

// remove deletes processes, namespaces and files of a lab. The directory goes last: as long as
// anything is left, so is the record of it.
func remove(prefix, dir string) error {
	names := namespacesOf(prefix)
	if err := killAll(names, dir); err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, deleteNetNS(name))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(volatileDir(prefix)), os.RemoveAll(dir)); err != nil {
		return fmt.Errorf("cannot remove lab %q: %w", prefix, err)
	}
	return nil
}

func ownerLives(owner string) bool {
	pid, start, ok := strings.Cut(strings.TrimSpace(owner), " ")
	n, err := strconv.Atoi(pid)
	if !ok || err != nil {
		return false
	}
	now, err := startTime(n)
	return err == nil && now == start
}

// startTime tells two processes of the same number apart: clock ticks since boot, proc_pid_stat(5) field 22.
// A zombie counts as gone.
func startTime(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The name, field 2, may contain anything; what follows the last parenthesis is state, field 3.
	_, rest, _ := strings.Cut(string(b[strings.LastIndexByte(string(b), ')'):]), " ")
	f := strings.Fields(rest)
	if len(f) < 20 || f[0] == "Z" || f[0] == "X" {
		return "", fmt.Errorf("cannot use process %d: %w", pid, os.ErrProcessDone)
	}
	return f[19], nil
}
