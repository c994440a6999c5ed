// Package file writes what the rooms remember on disk. Definitions of networks, which people edit, are
// package store's.
package file

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
)

// Replace puts value, as JSON, in the place of the file, readable by its owner alone, and makes its directory if
// need be: after a crash or a power cut the file is the old one or the new one, whole.
func Replace(file string, value any) error {
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
