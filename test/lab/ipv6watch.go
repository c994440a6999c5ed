package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Watch follows what the kernel holds for an interface by its own notifications, so that times are right to a millisecond or so
// on a machine that has one to spare. Open it before what is to be timed.
type Watch struct {
	host    *Host
	ifindex int
	file    *os.File
	done    chan struct{}

	mu      sync.Mutex
	history []IPv6State
	err     error
	changed chan struct{} // closed and replaced with each new state
}

// WatchIPv6 begins to follow an interface until ctx ends or Close.
func (h *Host) WatchIPv6(ctx context.Context, ifname string) (*Watch, error) {
	groups := 0
	for _, g := range []int{unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_IFINFO} {
		groups |= 1 << (g - 1)
	}
	w, err := h.openWatch(ifname, groups)
	if err != nil {
		return nil, fmt.Errorf("cannot watch IPv6 of %q on %q: %w", ifname, h.Name, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = w.file.Close() }) // closing twice is harmless
	h.onClose(func() { _ = w.file.Close() })
	go func() {
		defer close(w.done)
		defer stop()
		err := w.receive(func() bool { return false })
		w.mu.Lock()
		w.err = err
		close(w.changed)
		w.changed = make(chan struct{})
		w.mu.Unlock()
	}()
	return w, nil
}

// openWatch subscribes first and reads then, so that nothing falls between.
func (h *Host) openWatch(ifname string, groups int) (*Watch, error) {
	link, err := h.nl.LinkByName(ifname)
	if err != nil {
		return nil, err
	}
	fd := -1
	err = h.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE); err != nil {
			return err
		}
		// Best effort: with the default buffer it is sooner that too much at once makes the watch fail.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
		return unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: uint32(groups)})
	})
	if err != nil {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
		return nil, err
	}
	w := &Watch{host: h, ifindex: link.Attrs().Index, file: os.NewFile(uintptr(fd), "rtnetlink:"+ifname), done: make(chan struct{}), changed: make(chan struct{}),
		history: []IPv6State{{At: time.Now(), Neighbors: map[netip.Addr]net.HardwareAddr{}}}}
	for _, kind := range []uint16{unix.RTM_GETLINK, unix.RTM_GETADDR, unix.RTM_GETROUTE, unix.RTM_GETNEIGH} {
		if err := w.dump(kind); err != nil {
			return nil, errors.Join(err, w.file.Close())
		}
	}
	w.history = []IPv6State{w.history[len(w.history)-1]}
	return w, nil
}

// dump asks for all objects of a kind and takes them in.
func (w *Watch) dump(kind uint16) error {
	for range 10 { // a dump that a change interrupted has to be taken again
		request := binary.NativeEndian.AppendUint32(nil, 16+16)
		request = binary.NativeEndian.AppendUint16(request, kind)
		request = binary.NativeEndian.AppendUint16(request, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
		request = append(request, make([]byte, 8+16)...) // sequence, port; the family, as of all of these messages
		request[16] = unix.AF_INET6
		if _, err := w.file.Write(request); err != nil {
			return err
		}
		finished := false
		err := w.receive(func() bool { finished = true; return true })
		if finished && !errors.Is(err, errInterrupted) {
			return err
		}
		if !errors.Is(err, errInterrupted) {
			return errors.Join(err, errors.New("no end of the answer"))
		}
	}
	return errInterrupted
}

var errInterrupted = errors.New("a change interrupted the dump")

// receive takes in messages until done, which is called at the end of a dump, says so; without an error when the watch is closed.
func (w *Watch) receive(done func() bool) error {
	buf := make([]byte, 64<<10)
	var interrupted error
	for {
		n, err := w.file.Read(buf)
		now := time.Now()
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		state := w.last().clone()
		known := false
		for b := buf[:n]; len(b) >= 16; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < 16 || size > len(b) {
				return fmt.Errorf("cannot read rtnetlink: %w", errShort)
			}
			kind, flags := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:])
			if flags&unix.NLM_F_DUMP_INTR != 0 {
				interrupted = errInterrupted
			}
			switch body := b[16:size]; kind {
			case unix.NLMSG_ERROR:
				if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
					return unix.Errno(-code)
				}
			case unix.NLMSG_DONE:
				if w.put(state, now, known); done() {
					return interrupted
				}
			default:
				known = state.apply(kind, body, w.ifindex) || known
			}
			b = b[min((size+3)&^3, len(b)):]
		}
		w.put(state, now, known)
	}
}

func (w *Watch) put(state IPv6State, at time.Time, known bool) {
	if !known {
		return
	}
	state.At = at
	w.mu.Lock()
	defer w.mu.Unlock()
	w.history = append(w.history, state)
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *Watch) last() IPv6State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.history[len(w.history)-1]
}

// History returns all states since the watch was opened, the first being that of then.
func (w *Watch) History() []IPv6State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.history)
}

// First is the first state at or after the time for which the condition holds; the state that was in force then counts, as of then.
func (w *Watch) First(after time.Time, cond func(IPv6State) bool) (time.Time, bool) {
	history := w.History()
	for i, s := range history {
		if i+1 < len(history) && !history[i+1].At.After(after) {
			continue // over by then
		}
		if cond(s) {
			if s.At.Before(after) {
				return after, true
			}
			return s.At, true
		}
	}
	return time.Time{}, false
}

// Wait waits until the condition holds, and returns since when it has held without a break: the first state's time, if it held from
// the start. What is for the error: "address of 2001:db8::/64".
func (w *Watch) Wait(ctx context.Context, what string, cond func(IPv6State) bool) (time.Time, error) {
	since, _, err := w.wait(ctx, what, cond)
	return since, err
}

func (w *Watch) wait(ctx context.Context, what string, cond func(IPv6State) bool) (since time.Time, now IPv6State, err error) {
	for {
		w.mu.Lock()
		history, failure, changed := w.history, w.err, w.changed
		w.mu.Unlock()
		now = history[len(history)-1]
		for i := len(history) - 1; i >= 0 && cond(history[i]); i-- {
			since = history[i].At
		}
		if !since.IsZero() {
			return since, now, nil
		}
		if failure == nil {
			select {
			case <-changed:
				continue
			case <-w.done:
				failure = errors.Join(w.err, os.ErrClosed)
			case <-ctx.Done():
				failure = context.Cause(ctx)
			}
		}
		return time.Time{}, now, fmt.Errorf("cannot see %s on %q: %w; it has %+v", what, w.host.Name, failure, now)
	}
}

// Close ends the watch; what it saw stays readable.
func (w *Watch) Close() error {
	if err := w.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	<-w.done
	return nil
}
