package gate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"gangway/service/plan"
	"gangway/service/vnet"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Name is the watchdog's argv[0], by which the daemon's executable knows that it is to be the
// watchdog, and its name in the process list: who kills all that are called "gangwayd"
// doesn't mean this one.
const Name = "gangway-gate"

const (
	// pace is how long two looks are apart at least: a storm of changes costs a bounded share of a
	// processor, and the first of them is answered at once.
	pace = 5 * time.Millisecond
	// After a failure it tries again at once, then with growing pauses.
	minPause, maxPause = 10 * time.Millisecond, time.Second
)

// Main is the watchdog's main function: args are what follows Name, of which the first is the
// runtime directory. It returns when SIGTERM or SIGINT asks for it, or when another watchdog
// has the directory. log must not be a pipe to the daemon that may outlive its reader.
func Main(args []string, log *slog.Logger) error {
	if len(args) == 0 {
		return errors.New("cannot run the gate: no runtime directory is given")
	}
	// The thread group's name, whichever thread this is (prctl's PR_SET_NAME is the thread's alone).
	if err := os.WriteFile("/proc/self/comm", []byte(Name), 0); err != nil {
		log.Warn("cannot set the process's name", "error", err)
	}
	// Whoever read our messages may be gone; that is no reason to go as well (os/signal, "SIGPIPE").
	signal.Ignore(unix.SIGPIPE, unix.SIGHUP)
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	return Run(ctx, args[0], log)
}

// Run watches until ctx ends, and lets outer ends be up while they may (plan.GateOpen), down
// while not. It holds the lock of the file gate.lock in dir, which must exist; when another
// process has it, it returns nil at once, and also when the file is replaced by another.
// An error is that of the lock: whatever else fails is tried again.
func Run(ctx context.Context, dir string, log *slog.Logger) error {
	w := watchdog{path: lockPath(dir), log: log}
	var err error
	if w.lock, err = acquire(w.path); err != nil || w.lock == nil {
		if err != nil {
			return fmt.Errorf("cannot run the gate in %q: %w", dir, err)
		}
		return nil
	}
	defer w.lock.Close()
	return w.run(ctx)
}

func lockPath(dir string) string { return filepath.Join(dir, "gate.lock") }

type watchdog struct {
	path string
	lock *os.File
	log  *slog.Logger
}

func (w *watchdog) run(ctx context.Context) error {
	for pause := time.Duration(0); ; {
		began := time.Now()
		err := w.watch(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errReplaced):
			w.log.Warn("another gate takes over", "lock", w.path)
			return nil
		}
		if time.Since(began) > maxPause {
			pause = 0
		}
		level := slog.LevelWarn
		if pause > 0 { // said already
			level = slog.LevelDebug
		}
		w.log.Log(ctx, level, "cannot watch links, trying again", "error", err)
		sleep(ctx, pause)
		pause = min(max(2*pause, minPause), maxPause)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

var errReplaced = errors.New("the lock file was replaced")

// watch looks once, and again whenever a link has changed, until ctx ends or something fails.
// It subscribes before it looks, so that nothing is missed.
func (w *watchdog) watch(ctx context.Context) error {
	socket, err := subscribe()
	if err != nil {
		return err
	}
	defer socket.Close()
	defer context.AfterFunc(ctx, func() { _ = socket.SetReadDeadline(time.Unix(1, 0)) })()
	for {
		began := time.Now()
		switch err := w.look(); {
		case errors.Is(err, nl.ErrDumpInterrupted): // again, after the pace
		case err != nil:
			return err
		default:
			if err := await(socket); err != nil {
				return err
			}
		}
		if rest := pace - time.Since(began); rest > 0 {
			sleep(ctx, rest)
		}
	}
}

// look sets every outer end as it should be now.
func (w *watchdog) look() error {
	// One that was removed may come back as another's, or not: we go on until then.
	if same, err := leadsTo(w.path, w.lock); err == nil && !same {
		return errReplaced
	}
	k, err := links()
	if err != nil {
		return err
	}
	for _, l := range k.Links {
		if network, ok := plan.OuterOf(l); ok {
			err = errors.Join(err, w.set(&k, l, network))
		}
	}
	return err
}

func (w *watchdog) set(k *vnet.Kernel, outer vnet.Link, network string) error {
	open := plan.GateOpen(k, outer)
	if open == outer.Up {
		return nil
	}
	if err := setUp(outer.Index, open); err != nil {
		return fmt.Errorf("cannot set %q up or down: %w", outer.Name, err)
	}
	bridge, _ := k.LinkByIndex(outer.Master)
	w.log.Info("gate", "network", network, "interface", outer.Name, "bridge", bridge.Name, "open", open)
	return nil
}
