package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"gangway/service/plan"
	"gangway/service/store"
	"gangway/service/vnet"
)

// Options are what a Service needs.
type Options struct {
	Rooms Rooms
	// Monotonic returns CLOCK_MONOTONIC since boot, for the times in reports.
	Monotonic func() time.Duration
	Log       *slog.Logger
}

// resync is how often a pass runs with no poke at all: what no watcher can see (another
// program's change to a legacy iptables ruleset) is mended this late at the latest.
const resync = 5 * time.Minute

// Service is the actor: one goroutine, Run, owns everything but the published snapshot.
type Service struct {
	rooms     Rooms
	monotonic func() time.Duration
	log       *slog.Logger

	poked    chan struct{}
	pokedAt  atomic.Int64 // monotonic time of the first poke since the last pass, 0 if none
	commands chan *command

	published atomic.Pointer[vnet.Snapshot]

	sharing sync.Mutex // held while an uplink's sharing is set

	mu          sync.Mutex // guards subscribers
	subscribers map[int]func(*vnet.Snapshot, []vnet.Event)
	nextID      int

	// Of the loop alone:
	definitions map[string]store.Definition
	runtime     store.Runtime
	state       passState
}

// New loads the definitions and publishes them, all starting or inactive; nothing is
// changed on the machine before Run.
func New(o Options) (*Service, error) {
	s := &Service{
		rooms:       o.Rooms,
		monotonic:   o.Monotonic,
		log:         o.Log,
		poked:       make(chan struct{}, 1),
		commands:    make(chan *command),
		subscribers: map[int]func(*vnet.Snapshot, []vnet.Event){},
		definitions: map[string]store.Definition{},
		runtime:     o.Rooms.Store.Runtime(),
		state:       passState{first: true},
	}
	defs, err := o.Rooms.Store.Definitions()
	if err != nil {
		return nil, fmt.Errorf("cannot load networks: %w", err)
	}
	for _, d := range defs {
		if d.Problem != nil {
			s.log.Error("network cannot be used", "network", d.Name, "error", d.Problem)
		}
		s.definitions[d.Name] = d
	}
	s.nameBridges()
	s.published.Store(s.initialSnapshot())
	return s, nil
}

// Poke asks for a pass. It never blocks and may be called from anywhere; many pokes before
// the pass are one.
func (s *Service) Poke(reason string) {
	s.pokedAt.CompareAndSwap(0, int64(s.monotonic()))
	select {
	case s.poked <- struct{}{}:
		s.log.Debug("poked", "by", reason)
	default:
	}
}

// Snapshot returns what is published now.
func (s *Service) Snapshot() *vnet.Snapshot { return s.published.Load() }

// Subscribe calls f at once with the current snapshot and after each change, in order.
func (s *Service) Subscribe(f func(*vnet.Snapshot, []vnet.Event)) (cancel func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.nextID
	s.nextID++
	s.subscribers[id] = f
	f(s.published.Load(), nil)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.subscribers, id)
	}
}

// publish hands a snapshot and what happened to the subscribers.
func (s *Service) publish(snapshot *vnet.Snapshot, events []vnet.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.published.Store(snapshot)
	for _, f := range s.subscribers {
		f(snapshot, events)
	}
}

// Active tells whether any network runs or is to run.
func (s *Service) Active() bool {
	for _, n := range s.Snapshot().Networks {
		if n.State != vnet.Inactive {
			return true
		}
	}
	return false
}

// Run is the loop. It returns when ctx ends, leaving the machine as it is; Shutdown
// before that takes everything down.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	defer watchers.Wait()
	defer cancel()
	for name, w := range map[string]Watcher{"kernel": s.rooms.Kernel, "firewall": s.rooms.Firewall,
		"servers": s.rooms.Servers, "uplinks": s.rooms.Uplinks, "neighbour discovery": s.rooms.NDP, "gate": s.rooms.Gate} {
		watchers.Add(1)
		go func() {
			defer watchers.Done()
			s.watch(ctx, name, w)
		}()
	}
	s.reconcile(ctx)
	timer := time.NewTimer(s.nextPass())
	defer timer.Stop()
	pace := pacer{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-s.commands:
			c.reply <- s.execute(ctx, c)
		case <-s.poked:
			if !pace.wait(ctx) {
				return nil
			}
			s.reconcile(ctx)
		case <-timer.C:
			s.reconcile(ctx)
		}
		timer.Reset(s.nextPass())
	}
}

// watch keeps a watcher running: when it gives up, everything may have been missed.
func (s *Service) watch(ctx context.Context, name string, w Watcher) {
	for delay := 100 * time.Millisecond; ; delay = min(2*delay, 30*time.Second) {
		err := w.Watch(ctx, s.Poke)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, context.Canceled) {
			err = nil
		}
		s.log.Warn("watcher ended; it is started again", "watcher", name, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
		s.Poke(name + " is watched again")
	}
}

// pacer lets pokes through at once, but no more than a burst in any second: a machine
// whose routes never come to rest must not be made busier by us.
type pacer struct{ recent []time.Time }

const burst = 40

func (p *pacer) wait(ctx context.Context) bool {
	now := time.Now()
	if len(p.recent) == burst {
		if since := now.Sub(p.recent[0]); since < time.Second {
			select {
			case <-ctx.Done():
				return false
			case <-time.After(time.Second / burst):
			}
		}
		p.recent = p.recent[1:]
	}
	p.recent = append(p.recent, time.Now())
	return true
}

// Prime observes for the first time and publishes what was seen, with networks that are to
// run as starting; it changes nothing and returns what the first pass would do.
func (s *Service) Prime(ctx context.Context) ([]plan.Op, error) {
	want := s.want()
	have, blind, err := s.observe(ctx, want)
	if err = errors.Join(err, blind); err != nil {
		return nil, err
	}
	result := plan.Plan(want, have)
	s.state.seen, s.state.moored = have, result.Moored
	snapshot := snapshotOf(want, have, result, nil)
	for i, d := range result.Networks {
		if d.State == vnet.Active && len(result.Ops) > 0 {
			snapshot.Networks[i].State = vnet.Starting
		}
	}
	s.publish(snapshot, nil)
	return result.Ops, nil
}
