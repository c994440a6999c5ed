package ndp

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"gangway/service/ndp/message"
	"gangway/service/vnet"
)

// Options are the room's dependencies.
type Options struct {
	// StateDir is where ndp.json is kept, which outlives a boot (/var/lib/gangway). Required, and
	// created when absent.
	StateDir string
	// Log is where trouble with frames and files goes; nil is nowhere.
	Log *slog.Logger
	// Mute is for tests: withdrawals are recorded, but guests aren't told.
	Mute bool

	// The room's clock and that of the disk, for tests; nil for the machine's.
	now, wall func() time.Time
	// probing is after how long a guest that isn't heard is asked whether it is still there; 0 for a
	// minute.
	probing time.Duration
}

// Room listens, remembers and tells. Its methods may be called from any goroutine.
type Room struct {
	file      string
	log       *slog.Logger
	mute      bool
	now, wall func() time.Time
	probing   time.Duration
	sender    *sender
	wake      chan struct{}
	closing   chan struct{}
	running   sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	kernel   vnet.Kernel          // of the last Observe
	bridges  map[string]vnet.Link // of it, by name and, if ours, by alias
	members  map[int][]vnet.Link  // of it, by the bridge's index
	answered map[kernelProxy]bool // of it, those that are ours
	uplinks  map[string]*uplink
	networks map[string]*network
	sharing  map[string][]*network // those whose guests' addresses are learned, by the uplink that they are on
	taps     map[int]*tap
	deaf     map[string]bool // uplinks that couldn't be listened to
	dirty    bool
	taught   []*network // by operations that aren't on disk yet
	saveBy   time.Time  // when what is dirty is to be on disk, zero if nothing presses
	changed  string     // why a poke is due, "" if none is
	poked    time.Time

	watching      sync.Mutex
	watchers      map[int]func(reason string)
	nextWatcherID int
}

// New makes a room with what guests were taught in earlier lives. Nothing is listened to until
// Observe. It must be closed.
func New(o Options) (*Room, error) {
	if o.StateDir == "" {
		return nil, errors.New("cannot make neighbour discovery room: StateDir is required")
	}
	if err := os.MkdirAll(o.StateDir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot make neighbour discovery room in %q: %w", o.StateDir, err)
	}
	sender, err := newSender()
	if err != nil {
		return nil, err
	}
	r := &Room{
		file:     filepath.Join(o.StateDir, fileName),
		log:      o.Log,
		mute:     o.Mute,
		now:      o.now,
		wall:     o.wall,
		probing:  o.probing,
		sender:   sender,
		wake:     make(chan struct{}, 1),
		closing:  make(chan struct{}),
		uplinks:  map[string]*uplink{},
		networks: map[string]*network{},
		taps:     map[int]*tap{},
		deaf:     map[string]bool{},
		watchers: map[int]func(string){},
	}
	if r.log == nil {
		r.log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if r.now == nil {
		r.now = bootTime
	}
	if r.wall == nil {
		r.wall = func() time.Time { return time.Now().Round(0) }
	}
	if r.probing == 0 {
		r.probing = probePause
	}
	r.load()
	r.running.Go(r.run)
	return r, nil
}

// Close ends all listening. What guests were taught stays on disk, and nothing is withdrawn.
func (r *Room) Close() {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return
	}
	r.closed = true
	for _, u := range r.uplinks {
		u.close()
	}
	for _, t := range r.taps {
		t.listener.close()
	}
	if err := r.save(); err != nil {
		r.log.Error("memory is not up to date", "error", err)
	}
	close(r.closing)
	r.mu.Unlock()
	r.running.Wait()
	r.sender.close()
}

// network returns what is known of the network, making room for it.
func (r *Room) network(name string) *network {
	n := r.networks[name]
	if n == nil {
		n = newNetwork()
		r.networks[name] = n
	}
	return n
}

// bodies returns what a router said lately, on the uplink, or, if that is "", on any.
func (r *Room) bodies(uplink string) func(key) []body {
	return func(k key) []body {
		for name, u := range r.uplinks {
			if heard := u.cache[k]; heard != nil && (uplink == "" || uplink == name) {
				return heard.bodies
			}
		}
		return nil
	}
}

// frame is an advertisement in the name of the router.
func (k key) frame(to netip.Addr, mac message.MAC, body []byte) []byte {
	return message.AdvertisementFrame(k.address, k.mac, to, mac, body).Marshal()
}
