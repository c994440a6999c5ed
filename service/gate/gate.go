package gate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"gangway/service/plan"
)

// Options are what a Gate is made with.
type Options struct {
	// RuntimeDir is where the watchdog's lock is (gate.lock), required. It should not outlive a
	// boot. Apply makes it if need be.
	RuntimeDir string
	// Executable is what is started, with Name and the runtime directory as its arguments; "" is the
	// process's own, also when it was deleted since (/proc/self/exe).
	Executable string
	// Args are further arguments, behind the runtime directory.
	Args []string
	// Log is where starts and ends go; nil is nowhere.
	Log *slog.Logger
}

// Gate is the room of the watchdog. Its methods may be called from any goroutine.
type Gate struct {
	dir, executable string
	args            []string
	log             *slog.Logger

	mu            sync.Mutex
	known         *process          // the watchdog, as it was last seen; nil if none was
	followed      map[*process]bool // it, and those before that haven't ended yet
	following     sync.WaitGroup
	watchers      map[int]func(reason string)
	nextWatcherID int
}

// New makes a Gate. Nothing is touched yet.
func New(o Options) (*Gate, error) {
	if o.RuntimeDir == "" {
		return nil, errors.New("cannot make gate room: RuntimeDir is required")
	}
	dir, err := filepath.Abs(o.RuntimeDir)
	if err != nil {
		return nil, fmt.Errorf("cannot make gate room in %q: %w", o.RuntimeDir, err)
	}
	g := &Gate{dir: dir, executable: o.Executable, args: o.Args, log: o.Log,
		followed: map[*process]bool{}, watchers: map[int]func(string){}}
	if g.executable == "" {
		g.executable = "/proc/self/exe"
	}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	return g, nil
}

// Observe tells whether the watchdog runs, whoever started it. It disturbs neither one that runs
// nor one that is about to.
func (g *Gate) Observe(ctx context.Context) (running bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, fmt.Errorf("cannot look for the gate: %w", err)
	}
	p, err := g.find()
	if err != nil {
		return false, fmt.Errorf("cannot look for the gate: %w", err)
	}
	return p != nil, nil
}

// Watch pokes when a watchdog that was seen has ended ("gate ended"). It returns nil when ctx is done.
func (g *Gate) Watch(ctx context.Context, poke func(reason string)) error {
	g.mu.Lock()
	id := g.nextWatcherID
	g.nextWatcherID++
	g.watchers[id] = poke
	g.mu.Unlock()
	<-ctx.Done()
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.watchers, id)
	return nil
}

// Close stops looking after the watchdog, which goes on. The Gate can be used again.
func (g *Gate) Close() {
	g.mu.Lock()
	for p := range g.followed {
		p.release()
	}
	g.known = nil
	g.mu.Unlock()
	g.following.Wait()
}

// Apply carries out plan.StartGate and plan.StopGate, in order, each for itself. One returns
// when the watchdog has its lock, or is gone; 5 s at most.
func (g *Gate) Apply(ctx context.Context, ops []plan.Op) []plan.Outcome {
	outcomes := make([]plan.Outcome, len(ops))
	for i, op := range ops {
		if err := ctx.Err(); err != nil {
			outcomes[i].Err = fmt.Errorf("cannot %s: %w", op, err)
			continue
		}
		switch op.(type) {
		case plan.StartGate:
			outcomes[i].Err = g.start(ctx)
		case plan.StopGate:
			outcomes[i].Err = g.stop(ctx)
		default:
			outcomes[i].Err = fmt.Errorf("cannot %s: not an operation of the gate room", op)
		}
	}
	return outcomes
}

// find returns the watchdog that runs now, nil if none does, and looks after it from then on.
func (g *Gate) find() (*process, error) {
	pid, err := holder(lockPath(g.dir))
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known != nil && g.known.pid == pid && g.known.running() {
		return g.known, nil
	}
	g.known = nil // whose end is yet to be waited for
	if pid == 0 {
		return nil, nil
	}
	// First the descriptor, then the proof: if the process has the lock still, it is the
	// one that the descriptor means.
	p, err := open(pid)
	if err != nil || p == nil {
		return nil, err
	}
	if now, err := holder(lockPath(g.dir)); err != nil || now != pid {
		p.release()
		return nil, err
	}
	g.known = p
	g.followed[p] = true
	g.following.Go(func() { g.follow(p) })
	return p, nil
}

// follow waits for the process's end and tells the watchers of it.
func (g *Gate) follow(p *process) {
	ended := p.wait()
	if ended {
		g.log.Info("gate ended", "pid", p.pid)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.followed, p)
	if ended {
		for _, poke := range g.watchers {
			poke("gate ended")
		}
	}
}
