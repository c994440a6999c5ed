package service_test

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"gangway/service"
	"gangway/service/servicetest"
	"gangway/service/store"
	"gangway/service/vnet"
)

func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("rapid.nofailfile", "true") // the seed is printed, too
	goleak.VerifyTestMain(m)
}

// bench is a machine with a Service on it, in a synctest bubble.
type bench struct {
	t     *testing.T
	m     *servicetest.Machine
	dir   string
	store *store.Store
	svc   *service.Service
	end   func()

	mu        sync.Mutex
	snapshots []*vnet.Snapshot
	events    []vnet.Event
}

// run runs f in a bubble with a machine that has eth0 and a Service that has come to rest.
func run(t *testing.T, f func(*bench)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, m: servicetest.New(), dir: dir}
		b.m.Plug(eth0)
		b.begin()
		defer func() { b.end() }()
		f(b)
	})
}

// begin starts a new process on the machine.
func (b *bench) begin() {
	b.t.Helper()
	if err := b.tryBegin(); err != nil {
		b.t.Fatal(err)
	}
}

// load loads the files without running anything.
func (b *bench) load() error {
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	id := filepath.Join(b.dir, "machine-id") // the same in all benches: MAC addresses come of it
	if err := os.WriteFile(id, []byte("0123456789abcdef0123456789abcdef\n"), 0o644); err != nil {
		return err
	}
	s, err := store.Open(store.Options{ConfigDir: filepath.Join(b.dir, "etc"), StateDir: filepath.Join(b.dir, "lib"),
		RuntimeDir: filepath.Join(b.dir, "run"), MachineID: id, Log: quiet})
	if err != nil {
		return err
	}
	begun := time.Now()
	svc, err := service.New(service.Options{Rooms: b.m.Rooms(s), Log: quiet,
		Monotonic: func() time.Duration { return time.Hour + time.Since(begun) }})
	if err != nil {
		return err
	}
	b.store, b.svc, b.end = s, svc, func() {}
	return nil
}

func (b *bench) tryBegin() error {
	if err := b.load(); err != nil {
		return err
	}
	svc := b.svc
	cancelSubscription := svc.Subscribe(func(s *vnet.Snapshot, events []vnet.Event) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.snapshots = append(b.snapshots, s)
		b.events = append(b.events, events...)
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	b.end = func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("Run: %v", err)
		}
		cancelSubscription()
	}
	synctest.Wait()
	return nil
}

// restart ends the process and starts another.
func (b *bench) restart() {
	b.t.Helper()
	b.end()
	b.begin()
}

// settle lets everything that needs no passing of time happen, and what a poke is paced by.
func (b *bench) settle() {
	time.Sleep(50 * time.Millisecond)
	synctest.Wait()
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) create(name string, values map[string]any) {
	b.t.Helper()
	b.must(b.svc.CreateNetwork(context.Background(), name, values))
}

func (b *bench) network(name string) vnet.NetworkState {
	b.t.Helper()
	n, ok := b.svc.Snapshot().Network(name)
	if !ok {
		b.t.Fatalf("network %q is not published", name)
	}
	return n
}

// takeEvents returns the events since the last call.
func (b *bench) takeEvents() []vnet.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	events := b.events
	b.events = nil
	return events
}

func (b *bench) wantKind(err error, kind vnet.ErrorKind) {
	b.t.Helper()
	if err == nil || vnet.KindOf(err) != kind {
		b.t.Errorf("error %v, want a %s", err, kind)
	}
}

// wantMachine compares the machine's text with that of before.
func (b *bench) wantMachine(before string) {
	b.t.Helper()
	if diff := cmp.Diff(before, b.m.Text()); diff != "" {
		b.t.Errorf("the machine differs from before (-before +now):\n%s", diff)
	}
}

var (
	eth0 = servicetest.Dock{Name: "eth0", Kind: vnet.Ethernet, Address: pfx("10.1.0.5/24"), Gateway: ip("10.1.0.1"),
		Default: true, Metric: 100, DNS: []netip.Addr{ip("10.1.0.1")}}
	wlan0 = servicetest.Dock{Name: "wlan0", Kind: vnet.WiFi, Address: pfx("10.2.0.7/24"), Gateway: ip("10.2.0.1"),
		Default: true, Metric: 600, DNS: []netip.Addr{ip("10.2.0.53")}}
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func ip(s string) netip.Addr    { return netip.MustParseAddr(s) }
