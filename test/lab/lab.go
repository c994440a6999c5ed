package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"sync"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// Lab is a laptop, the sites where it may be, and what lies beyond. Make one with New; close it.
type Lab struct {
	Laptop   *Host
	Internet *Internet
	Sites    []*Site
	NM       *NetworkManager
	Polkit   *Polkit

	options Options
	prefix  string
	dir     string
	env     []string // of everything that runs on the laptop
	conn    *godbus.Conn
	bus     *process
	daemon  *Daemon

	mu     sync.Mutex
	hosts  []*Host
	guests map[string]*Guest
	lines  int // to the internet, from 32 on: of routers that were added to sites, and of VPNs
	closed bool
}

// live holds the labs that CloseOnSignal has to close.
var (
	liveMu sync.Mutex
	live   = map[*Lab]bool{}
)

var sweepOnce sync.Once

// New starts a lab. When it returns, bus, polkitd and the sites' servers are up, NetworkManager is
// starting (NM.WaitPrimary waits for it), and the uplinks have carrier. Whatever was started is removed
// again if New fails or ctx ends.
func New(ctx context.Context, o Options) (*Lab, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("cannot start a lab as user %d: %w", os.Geteuid(), os.ErrPermission)
	}
	var err error
	sweepOnce.Do(func() { err = Sweep() })
	if err != nil {
		return nil, err
	}
	l := &Lab{options: o, guests: map[string]*Guest{}}
	if l.prefix, l.dir, err = claim(); err != nil {
		return nil, err
	}
	liveMu.Lock()
	live[l] = true
	liveMu.Unlock()
	if err := l.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot start lab %q: %w", l.prefix, err), l.Close())
	}
	return l, nil
}

func (l *Lab) start(ctx context.Context) (err error) {
	l.env = l.environment()
	if err := l.layOut(); err != nil {
		return err
	}
	if l.Laptop, err = l.newHost("laptop"); err != nil {
		return err
	}
	l.Internet = &Internet{}
	for i := range l.options.Sites {
		l.Sites = append(l.Sites, newSite(l, i))
	}
	l.NM, l.Polkit = &NetworkManager{lab: l}, &Polkit{lab: l}
	l.daemon = &Daemon{lab: l}
	if err := parallel(func() error { return l.startLaptop(ctx) }, func() error { return l.startOutside(ctx) }); err != nil {
		return err
	}
	if l.options.NoNetworkManager {
		return nil
	}
	// Last, so that its first DISCOVER meets a line and a server that are up: the second comes seconds later.
	return l.NM.Start(ctx)
}

// startLaptop starts what NetworkManager needs.
func (l *Lab) startLaptop(ctx context.Context) error {
	for key, value := range l.options.Sysctl {
		if err := l.Laptop.Sysctl(key, value); err != nil {
			return err
		}
	}
	var err error
	if l.Laptop.mnt, err = newMountNS(l.Laptop.net, l.laptopBinds()); err != nil {
		return err
	}
	if err := l.startBus(ctx); err != nil {
		return err
	}
	if l.options.NoPolkit {
		return nil
	}
	return l.Polkit.Start(ctx)
}

// startOutside builds the sites, with their carrier.
func (l *Lab) startOutside(ctx context.Context) error {
	if err := l.Internet.start(l); err != nil {
		return err
	}
	var starts []func() error
	for _, s := range l.Sites {
		starts = append(starts, func() error { return s.start(ctx) })
	}
	return parallel(starts...)
}

func parallel(fs ...func() error) error {
	errs := make([]error, len(fs))
	var wg sync.WaitGroup
	for i, f := range fs {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Prefix begins the names of all namespaces of this lab, and of no other's.
func (l *Lab) Prefix() string { return l.prefix }

// Dir holds the lab's files until Close: log, state, and the laptop's run and etc.
func (l *Lab) Dir() string { return l.dir }

// Site returns the site of that name, nil if there is none.
func (l *Lab) Site(name string) *Site {
	for _, s := range l.Sites {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// Close ends everything in the lab and removes every trace of it. gangwayd gets SIGTERM and ten seconds,
// so that it can write its coverage data; the rest is killed. Closing again is harmless.
func (l *Lab) Close() error {
	l.mu.Lock()
	closed, hosts := l.closed, l.hosts
	l.closed = true
	l.mu.Unlock()
	if closed {
		return nil
	}
	var errs []error
	if l.daemon != nil && l.conn != nil && l.options.Gangwayd != "" {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		errs = append(errs, l.daemon.terminate(ctx))
		cancel()
	}
	if l.conn != nil {
		errs = append(errs, l.conn.Close())
	}
	if l.Internet != nil && l.Internet.EchoServer != nil {
		l.Internet.EchoServer.close()
	}
	errs = append(errs, killAll(namespacesOf(l.prefix), l.dir))
	for _, h := range hosts {
		errs = append(errs, h.close())
	}
	errs = append(errs, remove(l.prefix, l.dir))
	liveMu.Lock()
	delete(live, l)
	liveMu.Unlock()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot close lab %q: %w", l.prefix, err)
	}
	return nil
}

var closeOnSignal sync.Once

// CloseOnSignal makes SIGINT, SIGTERM and SIGHUP close all labs of this process, which then dies of the
// signal. A program that handles signals itself closes its lab itself.
func CloseOnSignal() {
	closeOnSignal.Do(func() {
		c := make(chan os.Signal, 1)
		signal.Notify(c, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
		go awaitSignal(c)
	})
}

func awaitSignal(c <-chan os.Signal) {
	sig := <-c
	liveMu.Lock()
	all := slices.Collect(maps.Keys(live))
	liveMu.Unlock()
	for _, l := range all {
		if err := l.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	signal.Reset(sig)
	if err := unix.Kill(os.Getpid(), sig.(unix.Signal)); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	<-time.After(time.Second) // the signal is on its way
	os.Exit(1)
}
