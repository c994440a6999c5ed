package dbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"gangway/service/vnet"
)

// Options are what a Server needs. Conn, Backend and Policy are required.
type Options struct {
	Conn    *Conn
	Backend Backend
	Policy  Authority
	// Version and Features are the properties of those names.
	Version  string
	Features []string
	// CommandTimeout bounds a command without the time that authorisation takes; default one minute.
	CommandTimeout time.Duration
	Log            *slog.Logger
}

// Server serves the contract on one connection.
type Server struct {
	conn     *Conn
	backend  Backend
	policy   Authority
	constant variants
	timeout  time.Duration
	log      *slog.Logger
	limits   *limits
	activity activity

	ctx    context.Context // ended by Close
	cancel context.CancelFunc

	// order is held for reading while the tree is read and the reply sent, and for writing
	// while a new tree comes in force and its signals are sent.
	order sync.RWMutex
	tree  *tree

	queue       queue
	publisher   sync.WaitGroup
	unsubscribe func()
	closing     sync.Once
}

// New makes a Server. Nothing is served before Start.
func New(o Options) *Server {
	if o.CommandTimeout == 0 {
		o.CommandTimeout = time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	features := append([]string{}, o.Features...)
	s := &Server{conn: o.Conn, backend: o.Backend, policy: o.Policy, timeout: o.CommandTimeout, log: o.Log,
		constant: variants{"Version": textVariant(o.Version), "Features": godbus.MakeVariant(features)},
		limits:   newLimits(), activity: activity{last: time.Now()}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.queue.init()
	return s
}

// Start subscribes to the backend and begins to serve. Signals go out from now on, though few can
// know of us before RequestName.
func (s *Server) Start() error {
	s.publish(s.backend.Snapshot(), nil)
	if !s.conn.board.server.CompareAndSwap(nil, s) {
		return errors.New("cannot serve on bus: the connection is served already")
	}
	s.publisher.Add(1)
	go s.publishAll()
	s.unsubscribe = s.backend.Subscribe(func(next *vnet.Snapshot, events []vnet.Event) {
		s.queue.put(publication{next, events})
	})
	return nil
}

// RequestName takes the bus name: from then on clients find us. It fails when another process has it.
func (s *Server) RequestName(ctx context.Context) error {
	var code uint32
	err := s.conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.RequestName", 0,
		BusName, uint32(godbus.NameFlagDoNotQueue)).Store(&code)
	if err != nil {
		return fmt.Errorf("cannot take bus name %q: %w", BusName, err)
	}
	switch godbus.RequestNameReply(code) {
	case godbus.RequestNameReplyPrimaryOwner, godbus.RequestNameReplyAlreadyOwner:
		return nil
	}
	return fmt.Errorf("cannot take bus name %q: another process has it", BusName)
}

// ReleaseName gives the bus name back: calls from then on start the daemon anew, where it is
// activatable. Calls that arrived before are still answered.
func (s *Server) ReleaseName(ctx context.Context) error {
	if err := s.conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.ReleaseName", 0, BusName).Err; err != nil {
		return fmt.Errorf("cannot release bus name %q: %w", BusName, err)
	}
	return nil
}

// IdleSince returns when the last call ended, now when one is in progress, and the time of New
// when there was none.
func (s *Server) IdleSince() time.Time { return s.activity.since() }

// Close stops serving: commands that wait for an authorisation end with an error, those in
// progress have their context ended. The connection stays open.
func (s *Server) Close() {
	s.closing.Do(func() {
		s.cancel()
		s.conn.board.server.CompareAndSwap(s, nil)
		if s.unsubscribe != nil {
			s.unsubscribe()
		}
		s.queue.close()
		s.publisher.Wait()
	})
}

func (s *Server) current() *tree {
	s.order.RLock()
	defer s.order.RUnlock()
	return s.tree
}
