package link

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"gangway/service/plan"

	"golang.org/x/sys/unix"
)

const sysctlRoot = "/proc/sys"

// sysctlPath admits only what lies below /proc/sys/net, however odd an interface's name is.
func sysctlPath(key string) (string, error) {
	if !filepath.IsLocal(key) || filepath.Clean(key) != key || !strings.HasPrefix(key, "net/") {
		return "", errors.New("not a path below net/")
	}
	return filepath.Join(sysctlRoot, key), nil
}

// readSysctl reads a value without its white space. exists is false when there is no such
// key, as when the interface is gone.
func readSysctl(key string) (value string, exists bool, err error) {
	path, err := sysctlPath(key)
	if err == nil {
		value, err = readLine(path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", false, nil
	case err != nil:
		return "", false, fmt.Errorf("cannot read sysctl %q: %w", key, err)
	}
	return value, true, nil
}

// readLine reads a file below /proc by the bare system calls: each network has one to read in
// each pass, and os.ReadFile takes longer, with a larger buffer and Go's poller in between.
func readLine(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", os.NewSyscallError("open", err)
	}
	defer unix.Close(fd)
	var buf [256]byte // all below net/ that we ask for is a number
	for {
		n, err := unix.Read(fd, buf[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return "", os.NewSyscallError("read", err)
		}
		return string(bytes.TrimSpace(buf[:n])), nil
	}
}

// writeSysctl writes the value unless it is there already.
func writeSysctl(key, value string) error {
	have, exists, err := readSysctl(key)
	if err != nil {
		return err
	}
	if exists && have == value {
		return nil
	}
	path, err := sysctlPath(key)
	if err == nil {
		var f *os.File
		if f, err = os.OpenFile(path, os.O_WRONLY, 0); err == nil {
			_, err = f.WriteString(value)
			err = errors.Join(err, f.Close())
		}
	}
	if err != nil {
		return fmt.Errorf("cannot set sysctl %q to %q: %w", key, value, err)
	}
	return nil
}

// memory is what borrowed sysctls were before: a file that is always whole, written before
// the sysctl is changed and cleared after it was given back. Killed in between, we either
// remember a value that is still in force, which Return leaves alone, or one to restore.
type memory struct {
	file  string
	log   *slog.Logger
	saved map[string]string // nil until loaded
}

// load reads the file once. One that can't be understood was not written by us: it is put
// aside, since otherwise nothing could be borrowed or returned any more.
func (m *memory) load() {
	if m.saved != nil {
		return
	}
	saved := map[string]string{}
	b, err := os.ReadFile(m.file)
	if err == nil {
		err = json.Unmarshal(b, &saved)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.log.Error("cannot read the remembered sysctls; they will not be restored", "file", m.file, "error", err)
		_ = os.Rename(m.file, m.file+".bad")
		saved = map[string]string{}
	}
	if saved == nil { // the file says null
		saved = map[string]string{}
	}
	m.saved = saved
}

func (m *memory) all() map[string]string {
	m.load()
	return maps.Clone(m.saved)
}

// borrow sets the sysctls in order and remembers what they were, unless that is remembered already: all of them
// before the first is set, with one write, since each waits for the disk. The outcomes are as many as ops.
func (m *memory) borrow(ops []plan.BorrowSysctl) []error {
	m.load()
	errs := make([]error, len(ops))
	was := map[string]string{}
	for i, o := range ops {
		have, exists, err := readSysctl(o.Key)
		switch {
		case err != nil:
			errs[i] = err
		case !exists:
			errs[i] = fmt.Errorf("cannot borrow sysctl %q: %w", o.Key, fs.ErrNotExist)
		case have == o.Value: // ours already, or somebody else's wish, which isn't ours to undo
		default:
			if _, remembered := m.saved[o.Key]; !remembered {
				was[o.Key] = have
			}
		}
	}
	var unsaved error
	if len(was) > 0 {
		unsaved = m.change(func(saved map[string]string) { maps.Copy(saved, was) })
	}
	for i, o := range ops {
		switch _, fresh := was[o.Key]; {
		case errs[i] != nil:
		case fresh && unsaved != nil:
			errs[i] = unsaved
		default:
			errs[i] = writeSysctl(o.Key, o.Value)
		}
	}
	return errs
}

// giveBack restores the sysctls that still are what we set them to, and forgets them, with one write at the end.
func (m *memory) giveBack(ops []plan.ReturnSysctl) []error {
	m.load()
	errs := make([]error, len(ops))
	var done []int
	for i, o := range ops {
		old, remembered := m.saved[o.Key]
		if !remembered {
			continue
		}
		have, exists, err := readSysctl(o.Key)
		if err == nil && exists && have == o.Value {
			err = writeSysctl(o.Key, old)
		}
		if errs[i] = err; err == nil {
			done = append(done, i)
		}
	}
	if len(done) == 0 {
		return errs
	}
	err := m.change(func(saved map[string]string) {
		for _, i := range done {
			delete(saved, ops[i].Key)
		}
	})
	for _, i := range done {
		errs[i] = err
	}
	return errs
}

// change puts a changed copy on disk, then in force.
func (m *memory) change(edit func(map[string]string)) error {
	saved := maps.Clone(m.saved)
	edit(saved)
	if err := writeWhole(m.file, saved); err != nil {
		return fmt.Errorf("cannot remember sysctls in %q: %w", m.file, err)
	}
	m.saved = saved
	return nil
}

// writeWhole replaces the file: after a crash it is the old one or the new one.
func writeWhole(file string, value any) error {
	b, err := json.MarshalIndent(value, "", "\t")
	if err != nil {
		return err
	}
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(file+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
