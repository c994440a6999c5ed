package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// netnsDir is where iproute2 keeps named namespaces, so that `ip netns exec` works on a lab's.
const netnsDir = "/run/netns"

// newNetNS makes a network namespace with that name and brings its loopback up.
func newNetNS(name string) (*os.File, error) {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot make %q: %w", netnsDir, err)
	}
	path := filepath.Join(netnsDir, name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return nil, fmt.Errorf("cannot make namespace %q: %w", name, err)
	}
	f.Close()
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	})
	if err == nil {
		f, err = os.Open(path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot make namespace %q: %w", name, err), deleteNetNS(name))
	}
	return f, nil
}

// deleteNetNS removes the name; the kernel removes the namespace when its last process and socket are gone.
func deleteNetNS(name string) error {
	path := filepath.Join(netnsDir, name)
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cannot unmount namespace %q: %w", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove namespace %q: %w", name, err)
	}
	return nil
}

// bind is one private file or directory of a mount namespace: what lies at From appears at To. Flags are
// 0 or unix.MS_RDONLY.
type bind struct {
	From, To string
	Flags    uintptr
}

// newMountNS makes a mount namespace in which /sys is that of net, read-only, and the binds are in place.
func newMountNS(net *os.File, binds []bind) (*os.File, error) {
	var f *os.File
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := unix.Setns(int(net.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("cannot make mounts private: %w", err)
		}
		if err := unix.Unmount("/sys", unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("cannot unmount %q: %w", "/sys", err)
		}
		if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("cannot mount %q: %w", "/sys", err)
		}
		for _, b := range binds {
			if err := unix.Mount(b.From, b.To, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
				return fmt.Errorf("cannot bind %q to %q: %w", b.From, b.To, err)
			}
			if b.Flags == 0 {
				continue
			}
			// The first mount ignores the flags (mount(2), "Creating a bind mount").
			if err := unix.Mount("", b.To, "", unix.MS_BIND|unix.MS_REMOUNT|b.Flags, ""); err != nil {
				return fmt.Errorf("cannot restrict %q: %w", b.To, err)
			}
		}
		var err error
		f, err = os.Open("/proc/thread-self/ns/mnt")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot make mount namespace of %q: %w", net.Name(), err)
	}
	return f, nil
}
