package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// dirs are where the daemon's files are.
type dirs struct {
	config, state, runtime, data string
	servers                      string // runtime of a dry run, too: dnsmasq is known by its configuration's path
	copy                         string // of a dry run, "" otherwise
}

// dataDir holds what the installation brings.
var dataDir = "/usr/share/gangway"

// directories honours what systemd sets in the environment; a dry run gets a copy, so that
// it takes the same way as a real one and changes nothing.
func directories(dryRun bool) (*dirs, error) {
	d := &dirs{
		config:  directory("CONFIGURATION_DIRECTORY", "/etc/gangway"),
		state:   directory("STATE_DIRECTORY", "/var/lib/gangway"),
		runtime: directory("RUNTIME_DIRECTORY", "/run/gangway"),
		data:    dataDir,
	}
	d.servers = d.runtime
	if !dryRun {
		return d, nil
	}
	var err error
	if d.copy, err = os.MkdirTemp("", "gangway-dry-run-"); err != nil {
		return nil, err
	}
	for name, dir := range map[string]*string{"config": &d.config, "state": &d.state, "runtime": &d.runtime} {
		to := filepath.Join(d.copy, name)
		if err := os.CopyFS(to, os.DirFS(*dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.remove()
			return nil, err
		}
		*dir = to
	}
	return d, nil
}

func (d *dirs) remove() {
	if d.copy != "" {
		os.RemoveAll(d.copy)
	}
}

// directory returns the first of systemd's colon-separated list.
func directory(variable, otherwise string) string {
	if first, _, _ := strings.Cut(os.Getenv(variable), ":"); first != "" {
		return first
	}
	return otherwise
}

// monotonic is CLOCK_MONOTONIC since boot: the clock of the times on the bus.
func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // the clock always exists
	}
	return time.Duration(ts.Nano())
}
