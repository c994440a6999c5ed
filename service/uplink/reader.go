package uplink

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"gangway/service/vnet"
)

// The sources of a reading, as in vnet.Uplinks.Source.
const (
	SourceNetworkManager = "NetworkManager"
	SourceRtnetlink      = "rtnetlink"
)

// Options are a Reader's dependencies and settings; the zero value reads without NetworkManager.
type Options struct {
	// Bus is the system bus, connected; the caller closes it. Nil means: no NetworkManager.
	// Signals that others subscribe to on it are none of Watch's business and do no harm.
	Bus *godbus.Conn
	// HoldDown is how long an uplink stays usable after its carrier went, so that a
	// short loss moves nobody; 0 means 300 ms, negative none.
	HoldDown time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// ResolvConf is the path of resolv.conf(5); "" means /etc/resolv.conf.
	ResolvConf string
	// Log may be nil.
	Log *slog.Logger
}

// Reader reads the uplinks. It remembers when each carrier went, nothing else that
// decides. Read is for one goroutine at a time; Watch may run beside it.
type Reader struct {
	bus        *godbus.Conn
	holdDown   time.Duration
	now        func() time.Time
	resolvConf string
	log        *slog.Logger

	carriers carriers
	profiles profiles
	pending  <-chan *godbus.Call // a reading that NetworkManager still owes
	last     picture             // of the last Read, for Again
	recheck  time.Duration       // likewise
	known    places              // what mattered in the last reading
	source   string              // of the last reading, for the log

	// changing is held by the one Share or Unshare that is under way.
	changing chan struct{}
	// shareWithin is how long either waits until the host is back on line, rollbackAfter when NetworkManager
	// puts everything back by itself unless told otherwise.
	shareWithin, rollbackAfter time.Duration
}

// New makes a Reader.
func New(o Options) *Reader {
	r := &Reader{bus: o.Bus, holdDown: o.HoldDown, now: o.Now, resolvConf: o.ResolvConf, log: o.Log,
		changing: make(chan struct{}, 1), shareWithin: 15 * time.Second, rollbackAfter: 30 * time.Second}
	if r.holdDown == 0 {
		r.holdDown = 300 * time.Millisecond
	}
	if r.now == nil {
		r.now = time.Now
	}
	if r.resolvConf == "" {
		r.resolvConf = "/etc/resolv.conf"
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	return r
}

// Read reads the uplinks, given this pass's dump of the kernel. It takes one round trip to
// NetworkManager, up to three when something came, and one to the kernel where there are foreign routing rules. When
// NetworkManager isn't there, or is silent for 2 s, the picture is rtnetlink's. The only
// error is that of ctx. It must be called in the network namespace of the dump.
func (r *Reader) Read(ctx context.Context, k *vnet.Kernel) (vnet.Uplinks, error) {
	pic, recheck, why := r.readNM(ctx, k)
	if err := ctx.Err(); err != nil {
		return vnet.Uplinks{}, fmt.Errorf("cannot read uplinks: %w", err)
	}
	r.noteSource(pic.nm, why)
	pic.why = why
	pic.shares = sharesOf(r.profiles.cached())
	r.readHost(&pic, k)
	r.last, r.recheck = pic, recheck
	return r.Again(k), nil
}

// Again is the last reading against a newer dump of the kernel: NetworkManager may have taken
// its time to answer, in the very moment in which it changes addresses and routes.
func (r *Reader) Again(k *vnet.Kernel) vnet.Uplinks {
	now := r.now()
	r.carriers = r.carriers.observe(k, now)
	u := convert(&r.last, k, holds{
		usable: r.carriers.remaining(r.holdDown, now),
		lost:   r.carriers.remaining(lostFor, now),
	})
	if r.recheck != 0 && (u.Recheck == 0 || r.recheck < u.Recheck) {
		u.Recheck = r.recheck
	}
	return u
}

func (r *Reader) noteSource(nm bool, why string) {
	source := SourceRtnetlink
	if nm {
		source = SourceNetworkManager
	}
	if source == r.source {
		return
	}
	r.source = source
	if why != "" {
		r.log.Info("source of uplinks", "source", source, "why", why)
	} else {
		r.log.Info("source of uplinks", "source", source)
	}
}
