package lab

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// WaitAddress waits for a usable address within the prefix, and returns it and since when there is one.
func (w *Watch) WaitAddress(ctx context.Context, within netip.Prefix) (addr netip.Addr, since time.Time, err error) {
	since, now, err := w.wait(ctx, fmt.Sprintf("a usable address of %s", within), func(s IPv6State) bool { return len(s.Usable(within)) > 0 })
	if err != nil {
		return addr, since, err
	}
	return now.Usable(within)[0], since, nil
}

// WaitNoAddress waits until no address within the prefix is usable any more: each is gone or deprecated.
func (w *Watch) WaitNoAddress(ctx context.Context, within netip.Prefix) (since time.Time, err error) {
	return w.Wait(ctx, fmt.Sprintf("no usable address of %s", within), func(s IPv6State) bool { return len(s.Usable(within)) == 0 })
}

// WaitRouter waits for a default route by the router, WaitNoRouter until there is none; the zero Addr stands for any router.
func (w *Watch) WaitRouter(ctx context.Context, router netip.Addr) (since time.Time, err error) {
	return w.Wait(ctx, fmt.Sprintf("default router %s", router), func(s IPv6State) bool { return s.HasRouter(router) })
}
func (w *Watch) WaitNoRouter(ctx context.Context, router netip.Addr) (since time.Time, err error) {
	return w.Wait(ctx, fmt.Sprintf("no default router %s", router), func(s IPv6State) bool { return !s.HasRouter(router) })
}

// timed opens a watch for the time of one wait and returns how long it took, 0 if it held already.
func (m *Machine) timed(ctx context.Context, wait func(*Watch) (time.Time, error)) (time.Duration, error) {
	w, err := m.WatchIPv6(ctx)
	if err != nil {
		return 0, err
	}
	since, err := wait(w)
	took := since.Sub(w.History()[0].At)
	if closed := w.Close(); err == nil {
		err = closed
	}
	return took, err
}

// WaitAddress6 waits for a usable address of eth0 within the prefix and returns it and how long that took.
func (m *Machine) WaitAddress6(ctx context.Context, within netip.Prefix) (addr netip.Addr, took time.Duration, err error) {
	took, err = m.timed(ctx, func(w *Watch) (since time.Time, err error) {
		addr, since, err = w.WaitAddress(ctx, within)
		return since, err
	})
	return addr, took, err
}

// WaitNoAddress6 waits until no address of eth0 within the prefix is usable any more.
func (m *Machine) WaitNoAddress6(ctx context.Context, within netip.Prefix) (took time.Duration, err error) {
	return m.timed(ctx, func(w *Watch) (time.Time, error) { return w.WaitNoAddress(ctx, within) })
}

// WaitRouter waits for a default route by the router, WaitNoRouter until there is none; the zero Addr stands for any router.
func (m *Machine) WaitRouter(ctx context.Context, router netip.Addr) (took time.Duration, err error) {
	return m.timed(ctx, func(w *Watch) (time.Time, error) { return w.WaitRouter(ctx, router) })
}
func (m *Machine) WaitNoRouter(ctx context.Context, router netip.Addr) (took time.Duration, err error) {
	return m.timed(ctx, func(w *Watch) (time.Time, error) { return w.WaitNoRouter(ctx, router) })
}

// WaitReach sends an echo every 5 ms until one comes back, and returns it and how long that took. Unlike Reach it doesn't
// wait for one echo before the next.
func (h *Host) WaitReach(ctx context.Context, echo netip.AddrPort) (Sample, time.Duration, error) {
	start := time.Now()
	p, err := h.ProbeSockets(ctx, echo, ProbeOptions{})
	if err != nil {
		return Sample{}, 0, err
	}
	s, err := p.WaitSuccess(ctx, start)
	took := time.Since(start)
	p.cancel() // without waiting for the answers of those that are on their way
	return s, took, err
}
