package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxFile is the size in bytes beyond which a file isn't ours: the largest definition, with
// all its reservations, has a tenth of it.
const maxFile = 1 << 20

// The names of temporary files: hidden, and no other program's.
const (
	temporaryPrefix = ".gangway-"
	temporarySuffix = ".tmp"
)

var (
	errNotRegular = errors.New("is not a regular file")
	errTooLarge   = fmt.Errorf("is larger than %d bytes", maxFile)
)

// readFile reads a regular file of at most maxFile bytes, without being held up by a FIFO.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNotRegular
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, errTooLarge
	}
	return data, nil
}

// writeFile puts data in the place of the file, atomically and durably: written to a temporary
// file beside it and synced, renamed over it, and the directory synced.
func writeFile(path string, data []byte, mode fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, temporaryPrefix+"*"+temporarySuffix)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	// Close, too, reports a write that went wrong on some file systems (close(2)).
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename or removal in the directory outlive a power cut (fsync(2)).
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// removeTemporary removes what a process that was killed in writeFile left in the directory.
func (s *Store) removeTemporary(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // absent, or it is reported when it is to be used
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), temporaryPrefix) || !strings.HasSuffix(e.Name(), temporarySuffix) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if err := os.Remove(path); err != nil {
			s.log.Warn("cannot remove leftover file", "path", path, "err", err)
		} else {
			s.log.Info("leftover file removed", "path", path)
		}
	}
}

// loadState reads the file, if there is one, and hands its bytes to decode. What can't be read
// or decoded is moved aside, so that a person can look at it and the next write succeeds.
func (s *Store) loadState(path string, decode func([]byte) error) {
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		err = decode(data)
	}
	if err == nil {
		return
	}
	aside := path + ".corrupt"
	if e := os.Rename(path, aside); e != nil {
		s.log.Error("state file is corrupt and can't be moved aside, starting without", "path", path, "err", errors.Join(err, e))
		return
	}
	s.log.Error("state file is corrupt, moved aside, starting without", "path", path, "moved", aside, "err", err)
}
