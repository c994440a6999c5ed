package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// machineEtc is where the laptop sees this machine's own /etc, read-only.
const machineEtc = "/run/machine-etc"

// volatileDir is where a lab's /run is: in memory, as a real laptop's, where flushing a file to
// disk costs nothing. Where there is no such place it is on disk.
func volatileDir(prefix string) string { return filepath.Join("/dev/shm", "gangway-lab-"+prefix) }

// layOutRun makes the laptop's /run.
func (l *Lab) layOutRun() error {
	var fs unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		return nil
	}
	dir := volatileDir(l.prefix)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("cannot lay out lab: %w", err)
	}
	if err := os.Symlink(dir, filepath.Join(l.dir, "run")); err != nil {
		return fmt.Errorf("cannot lay out lab: %w", err)
	}
	return nil
}

// layOut makes the lab's directories and the files that the laptop's parts read.
func (l *Lab) layOut() error {
	if err := l.layOutRun(); err != nil {
		return err
	}
	for _, d := range []string{"log", "state/gangway", "state/NetworkManager", "run/dbus", "run/NetworkManager", "run/gangway", "run/lock", "run/machine-etc",
		"etc/gangway", "etc/NetworkManager/system-connections", "etc/NetworkManager/conf.d", "etc/NetworkManager/dispatcher.d", "etc/polkit-1/rules.d",
		"polkit-actions", "bus/services", "bus/policy.d", "router"} {
		if err := os.MkdirAll(filepath.Join(l.dir, d), 0o755); err != nil {
			return fmt.Errorf("cannot lay out lab: %w", err)
		}
	}
	return parallel(l.writeEtc, l.writeBus, l.writePolkit, l.writeNetworkManager)
}

// writeEtc fills the laptop's /etc: what is not its own is a link to this machine's.
func (l *Lab) writeEtc() error {
	if err := os.WriteFile(filepath.Join(l.dir, "etc/resolv.conf"), nil, 0o644); err != nil {
		return fmt.Errorf("cannot lay out lab: %w", err)
	}
	entries, err := os.ReadDir("/etc")
	if err != nil {
		return fmt.Errorf("cannot lay out lab: %w", err)
	}
	for _, e := range entries {
		target := filepath.Join(machineEtc, e.Name())
		if e.Type()&os.ModeSymlink != 0 { // it may be relative to /etc
			if target, err = os.Readlink(filepath.Join("/etc", e.Name())); err != nil {
				return fmt.Errorf("cannot lay out lab: %w", err)
			}
		}
		if err := os.Symlink(target, filepath.Join(l.dir, "etc", e.Name())); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("cannot lay out lab: %w", err)
		}
	}
	return nil
}

// laptopBinds are the laptop's private places, in the order of mounting.
func (l *Lab) laptopBinds() []bind {
	in := func(path string) string { return filepath.Join(l.dir, path) }
	binds := []bind{{in("run"), "/run", 0}, {"/etc", machineEtc, unix.MS_RDONLY}, {in("etc"), "/etc", 0}}
	for _, b := range []bind{
		{in("state/NetworkManager"), "/var/lib/NetworkManager", 0},
		{in("polkit-actions"), "/usr/share/polkit-1/actions", 0},
	} {
		if _, err := os.Stat(b.To); err == nil { // absent where the part is not installed
			binds = append(binds, b)
		}
	}
	return binds
}
