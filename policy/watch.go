package policy

import (
	"context"
	"errors"
	"fmt"

	godbus "github.com/godbus/dbus/v5"
)

var errLeft = errors.New("the caller has left the bus")

type watch struct{ left context.CancelCauseFunc }

// ownerRule matches the owner changes of one unique name; those are safe to quote.
func ownerRule(name string) string {
	return "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus'," +
		"member='NameOwnerChanged',arg0='" + name + "'"
}

// whilePresent returns a context that ends with errLeft when the unique name leaves the bus.
// stop must be called.
func (c *Checker) whilePresent(ctx context.Context, name string) (_ context.Context, stop func(), err error) {
	adding, cancelAdding := context.WithTimeout(ctx, c.options.Timeout)
	defer cancelAdding()
	present, left := context.WithCancelCause(ctx)
	w := &watch{left: left}
	c.mu.Lock()
	if c.gone[name] == nil {
		c.gone[name] = map[*watch]struct{}{}
	}
	c.gone[name][w] = struct{}{}
	c.mu.Unlock()
	// The bus counts equal rules, so each watch adds and removes one of its own.
	bus := c.conn.BusObject()
	stop = func() {
		left(nil)
		c.mu.Lock()
		delete(c.gone[name], w)
		if len(c.gone[name]) == 0 {
			delete(c.gone, name)
		}
		c.mu.Unlock()
		bus.Go("org.freedesktop.DBus.RemoveMatch", godbus.FlagNoReplyExpected, nil, ownerRule(name))
	}
	if err := bus.CallWithContext(adding, "org.freedesktop.DBus.AddMatch", 0, ownerRule(name)).Err; err != nil {
		stop()
		return nil, nil, fmt.Errorf("cannot watch %q: %w", name, err)
	}
	return present, stop, nil
}

func (c *Checker) watchNames() {
	defer close(c.done)
	for {
		select {
		case s, ok := <-c.signals:
			if !ok { // the connection is closed
				return
			}
			c.ownerChanged(s)
		case <-c.quit:
			return
		}
	}
}

func (c *Checker) ownerChanged(s *godbus.Signal) {
	// The bus lets nobody else send as org.freedesktop.DBus.
	if s.Sender != "org.freedesktop.DBus" || s.Name != "org.freedesktop.DBus.NameOwnerChanged" {
		return
	}
	var name, before, now string
	if godbus.Store(s.Body, &name, &before, &now) != nil || now != "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.gone[name] {
		w.left(errLeft)
	}
}

// Close ends the Checker's watching; checks in progress end by their own contexts.
func (c *Checker) Close() {
	c.closing.Do(func() {
		c.conn.RemoveSignal(c.signals)
		close(c.quit)
		<-c.done
	})
}
