package dbus

import (
	"context"
	"errors"
	"reflect"
	"sync"

	godbus "github.com/godbus/dbus/v5"

	"gangway/service/vnet"
)

// publication is a snapshot that waits to be published, with what happened on the way to it.
type publication struct {
	snapshot *vnet.Snapshot
	events   []vnet.Event
}

// queue is between the backend, which must not wait for the bus, and the publisher.
type queue struct {
	mu      sync.Mutex
	waiting []publication
	closed  bool
	more    *sync.Cond // signalled when something comes in
	shown   *vnet.Snapshot
	waiters map[*waiter]struct{}
}

// waiter has seen everything that was published since it was made.
type waiter struct {
	seen map[*vnet.Snapshot]bool
	more chan struct{} // of one
}

func (q *queue) init() {
	q.more = sync.NewCond(&q.mu)
	q.waiters = map[*waiter]struct{}{}
}

func (q *queue) put(p publication) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, p)
	q.more.Signal()
}

// take waits for the next publication; false when the queue is closed.
func (q *queue) take() (publication, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) == 0 && !q.closed {
		q.more.Wait()
	}
	if q.closed {
		return publication{}, false
	}
	p := q.waiting[0]
	q.waiting = q.waiting[1:]
	return p, true
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.more.Signal()
}

// announce tells those who wait for a publication.
func (q *queue) announce(published *vnet.Snapshot) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.shown = published
	for w := range q.waiters {
		w.seen[published] = true
		select {
		case w.more <- struct{}{}:
		default:
		}
	}
}

func (q *queue) wait() *waiter {
	q.mu.Lock()
	defer q.mu.Unlock()
	w := &waiter{seen: map[*vnet.Snapshot]bool{q.shown: true}, more: make(chan struct{}, 1)}
	q.waiters[w] = struct{}{}
	return w
}

func (q *queue) leave(w *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.waiters, w)
}

func (q *queue) saw(w *waiter, s *vnet.Snapshot) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return w.seen[s]
}

func (s *Server) publishAll() {
	defer s.publisher.Done()
	for {
		p, ok := s.queue.take()
		if !ok {
			return
		}
		s.publish(p.snapshot, p.events)
	}
}

// awaitPublished waits until the backend's present snapshot, or a later one, is on the bus.
func (s *Server) awaitPublished(ctx context.Context) error {
	// The waiter comes first: what the backend shows from then on is on the bus already or
	// will be seen, however soon the next one takes its place.
	w := s.queue.wait()
	defer s.queue.leave(w)
	target := s.backend.Snapshot()
	for !s.queue.saw(w, target) {
		select {
		case <-w.more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// publish brings a snapshot in force and says on the bus what it changed: new objects, changed
// properties, events, and last the objects that are gone.
func (s *Server) publish(snapshot *vnet.Snapshot, events []vnet.Event) {
	next := newTree(snapshot, s.constant)
	s.order.Lock()
	before := s.tree
	s.tree = next
	if before != nil {
		s.emitDifference(before, next, events)
	}
	s.order.Unlock()
	s.queue.announce(snapshot)
}

func (s *Server) emitDifference(before, next *tree, events []vnet.Event) {
	published := next.published()
	for _, o := range published {
		if !before.shows(o) {
			s.emit(RootPath, objectManager+".InterfacesAdded", o.path, map[string]variants{o.iface: o.properties})
		}
	}
	for _, o := range published {
		if !before.shows(o) {
			continue
		}
		if changed := changes(before.objects[o.path].properties, o.properties); len(changed) > 0 {
			s.emit(o.path, properties+".PropertiesChanged", o.iface, changed, []string{})
		}
	}
	for i := range events {
		s.emitEvent(&events[i])
	}
	for _, o := range before.published() {
		if !next.shows(o) {
			s.emit(RootPath, objectManager+".InterfacesRemoved", o.path, []string{o.iface})
		}
	}
}

func (t *tree) shows(o *object) bool {
	same, ok := t.objects[o.path]
	return ok && same.iface == o.iface
}

// changes returns the properties whose value isn't what it was.
func changes(before, next variants) variants {
	changed := variants{}
	for name, v := range next {
		if !reflect.DeepEqual(v.Value(), before[name].Value()) {
			changed[name] = v
		}
	}
	return changed
}

func (s *Server) emitEvent(e *vnet.Event) {
	path, signal := NetworkPath(e.Network), NetworkInterface+"."
	switch {
	case e.Switched != nil:
		w := e.Switched
		s.emit(RootPath, ManagerInterface+".Switched", UplinkPath(w.From), UplinkPath(w.To), variants{
			"detected":           godbus.MakeVariant(microseconds(w.Detected)),
			"nat-done":           godbus.MakeVariant(microseconds(w.NATDone)),
			"ipv6-done":          godbus.MakeVariant(microseconds(w.IPv6Done)),
			"flows-flushed":      godbus.MakeVariant(w.FlowsFlushed),
			"prefixes-withdrawn": texts(w.Withdrawn, prefixText),
			"prefixes-announced": texts(w.Announced, prefixText),
		})
	case e.Renumbered != nil:
		s.emit(path, signal+"Renumbered", prefixText(e.Renumbered.Old), prefixText(e.Renumbered.New))
	case e.LeaseAdded != nil:
		s.emit(path, signal+"LeaseAdded", leaseValues(e.LeaseAdded))
	case e.LeaseRemoved != nil:
		s.emit(path, signal+"LeaseRemoved", leaseValues(e.LeaseRemoved))
	case e.PortAdded != nil:
		s.emit(path, signal+"PortAdded", portValues(e.PortAdded))
	case e.PortRemoved != nil:
		s.emit(path, signal+"PortRemoved", portValues(e.PortRemoved))
	}
}

func (s *Server) emit(path godbus.ObjectPath, name string, values ...any) {
	// A connection that is gone is the main program's to notice.
	if err := s.conn.Emit(path, name, values...); err != nil && !errors.Is(err, godbus.ErrClosed) && s.conn.Connected() {
		s.log.Error("signal not sent", "path", string(path), "signal", name, "err", err)
	}
}
