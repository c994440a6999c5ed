package dnsmasq

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Watch pokes when a server ends unasked and when a lease file changes, until ctx is
// done; then it returns nil. Servers are watched from the Observe or Apply on that found or started them.
func (r *Room) Watch(ctx context.Context, poke func(reason string)) error {
	if err := makeDir(r.leases); err != nil {
		return err
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("cannot watch leases: %w", err)
	}
	notes := os.NewFile(uintptr(fd), "inotify")
	defer notes.Close()
	// dnsmasq keeps the file open and rewrites it: there is no IN_CLOSE_WRITE.
	const events = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_TO | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, r.leases, events); err != nil {
		return fmt.Errorf("cannot watch %q: %w", r.leases, err)
	}
	defer r.addWatcher(poke)()
	defer context.AfterFunc(ctx, func() { notes.Close() })()
	buffer := make([]byte, 16<<10)
	for {
		// What changed doesn't matter: whoever is poked reads everything.
		if _, err := notes.Read(buffer); err != nil {
			if ctx.Err() != nil && errors.Is(err, os.ErrClosed) {
				return nil
			}
			return fmt.Errorf("cannot watch leases: %w", err)
		}
		poke("leases changed")
	}
}

func (r *Room) addWatcher(poke func(string)) (remove func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := r.nextWatcherID
	r.nextWatcherID++
	r.watchers[id] = poke
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.watchers, id)
	}
}
