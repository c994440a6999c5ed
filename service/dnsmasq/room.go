package dnsmasq

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// Options are the room's dependencies.
type Options struct {
	// Program is dnsmasq's path; "" looks for it in PATH and where Debian has it.
	Program string
	// RuntimeDir is where configuration and records are kept while servers run
	// (/run/gangway); it must be searchable by User. StateDir holds the leases, which outlive
	// a boot (/var/lib/gangway). Both are required and created when absent.
	RuntimeDir, StateDir string
	// LookOnly is for a room beside one that works in the same directories: Observe then
	// removes no files. Apply must not be used.
	LookOnly bool
	// User is whom dnsmasq becomes after start; "" is "dnsmasq" if there is such a user,
	// else "nobody".
	User string
	// Bus is the connection to the system bus, required; the servers are on the same bus.
	Bus *godbus.Conn
	// BusAddress is handed to the servers as DBUS_SYSTEM_BUS_ADDRESS; "" is libdbus's default.
	BusAddress string
	// Clock tells which leases have expired; nil is time.Now.
	Clock func() time.Time
	// Log is where events of the servers go; nil is nowhere.
	Log *slog.Logger
}

// startDeadline bounds a start, stopGrace is how long a server may take to end by itself,
// callDeadline bounds a call over the bus.
const (
	startDeadline = 5 * time.Second
	stopGrace     = 2 * time.Second
	callDeadline  = 2 * time.Second
)

// Room runs the servers. Observe and Apply are for one goroutine; Watch may run beside.
type Room struct {
	program       string
	account       account
	runtime       string // RuntimeDir/dnsmasq
	leases        string // StateDir/leases
	bus           *godbus.Conn
	busAddress    string
	clock         func() time.Time
	log           *slog.Logger
	namespace     string // our network namespace, as /proc shows it
	lookOnly      bool
	scanned       bool // the first Observe's search of /proc is done
	mu            sync.Mutex
	servers       map[string]*server
	seen          map[string][]lease // leases of the last look, by network
	watchers      map[int]func(reason string)
	nextWatcherID int
}

// account is whom dnsmasq becomes.
type account struct {
	user, group string
	uid         uint32
}

// New makes a room. Nothing is touched until Observe; that dnsmasq isn't installed is
// found out when a server is started.
func New(o Options) (*Room, error) {
	if o.RuntimeDir == "" || o.StateDir == "" || o.Bus == nil {
		return nil, errors.New("cannot make server room: RuntimeDir, StateDir and Bus are required")
	}
	runtime, err := filepath.Abs(o.RuntimeDir)
	if err != nil {
		return nil, fmt.Errorf("cannot make server room in %q: %w", o.RuntimeDir, err)
	}
	state, err := filepath.Abs(o.StateDir)
	if err != nil {
		return nil, fmt.Errorf("cannot make server room in %q: %w", o.StateDir, err)
	}
	who, err := findAccount(o.User)
	if err != nil {
		return nil, err
	}
	// Of the process, not of the thread: a child is forked by any of our threads.
	namespace, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("cannot read own network namespace: %w", err)
	}
	r := &Room{
		program:    findProgram(o.Program),
		account:    who,
		runtime:    filepath.Join(runtime, "dnsmasq"),
		leases:     filepath.Join(state, "leases"),
		bus:        o.Bus,
		busAddress: o.BusAddress,
		clock:      o.Clock,
		log:        o.Log,
		namespace:  namespace,
		lookOnly:   o.LookOnly,
		seen:       map[string][]lease{},
		servers:    map[string]*server{},
		watchers:   map[int]func(string){},
	}
	if r.clock == nil {
		r.clock = time.Now
	}
	if r.log == nil {
		r.log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return r, nil
}

// Close lets go of the servers without ending them.
func (r *Room) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, s := range r.servers {
		s.release()
		delete(r.servers, name)
	}
}

// server returns the network's running server, nil if there is none that we know of.
func (r *Room) server(network string) *server {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.servers[network]; s != nil && s.running() {
		return s
	}
	return nil
}

// track takes a server over: from now on its end is noticed.
func (r *Room) track(s *server) {
	r.mu.Lock()
	r.servers[s.Network] = s
	r.mu.Unlock()
	go s.wait(func() { r.ended(s) })
}

// ended is called once when a server has ended, wanted or not.
func (r *Room) ended(s *server) {
	r.mu.Lock()
	if r.servers[s.Network] == s {
		delete(r.servers, s.Network)
	}
	r.mu.Unlock()
	if s.ending.Load() {
		return
	}
	r.log.Warn("dnsmasq ended unasked", "network", s.Network, "pid", s.PID,
		"last words", lastLine(r.files(s.Network).log))
	r.poke("dnsmasq of " + s.Network + " ended")
}

func (r *Room) poke(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, poke := range r.watchers {
		poke(reason)
	}
}

func findProgram(program string) string {
	if program != "" {
		return program
	}
	if path, err := exec.LookPath("dnsmasq"); err == nil {
		if path, err = filepath.Abs(path); err == nil {
			return path
		}
	}
	return "/usr/sbin/dnsmasq" // a service's PATH may lack it
}

func findAccount(name string) (account, error) {
	u, err := user.Lookup(name)
	if name == "" {
		if u, err = user.Lookup("dnsmasq"); err != nil {
			u, err = user.Lookup("nobody")
		}
	}
	if err != nil {
		return account{}, fmt.Errorf("cannot find dnsmasq's user %q: %w", name, err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("cannot read id of user %q: %w", u.Username, err)
	}
	g, err := user.LookupGroupId(u.Gid)
	if err != nil {
		return account{}, fmt.Errorf("cannot find group of user %q: %w", u.Username, err)
	}
	return account{user: u.Username, group: g.Name, uid: uint32(uid)}, nil
}
