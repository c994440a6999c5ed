package main

import (
	"time"

	"gangway/dbus"
	"gangway/service"
	"gangway/service/vnet"
)

// idleTimer says when the daemon has been of no use for a while. It ticks only while no
// network runs.
type idleTimer struct {
	c      <-chan time.Time
	after  time.Duration
	timer  *time.Timer
	server *dbus.Server
	svc    *service.Service
	cancel func()
}

func newIdleTimer(after time.Duration, svc *service.Service, server *dbus.Server) *idleTimer {
	t := &idleTimer{after: after, server: server, svc: svc, cancel: func() {}}
	if after == 0 {
		return t
	}
	t.timer = time.NewTimer(after)
	t.c = t.timer.C
	t.cancel = svc.Subscribe(func(*vnet.Snapshot, []vnet.Event) {
		if svc.Active() {
			t.timer.Stop()
		} else {
			t.timer.Reset(after)
		}
	})
	return t
}

// expired tells, when the timer fired, whether nothing was asked since; else it is wound again.
func (t *idleTimer) expired() bool {
	if t.svc.Active() {
		return false
	}
	rest := t.after - time.Since(t.server.IdleSince())
	if rest > 0 {
		t.timer.Reset(rest)
	}
	return rest <= 0
}

func (t *idleTimer) stop() {
	t.cancel()
	if t.timer != nil {
		t.timer.Stop()
	}
}
