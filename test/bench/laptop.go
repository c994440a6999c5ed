package main

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"gangway/test/lab"
)

const (
	busName = "org.gangway.Gangway1"
	root    = godbus.ObjectPath("/org/gangway/Gangway1")
)

// laptop is a lab with Gangway as a client sees it.
type laptop struct {
	*lab.Lab
	bus     *godbus.Conn
	network godbus.ObjectPath
	guest   *lab.Guest
	gateway netip.Addr
	signals chan *godbus.Signal
}

// raise starts a lab, with the daemon and one guest unless bare.
func raise(ctx context.Context, o lab.Options, bare bool) (*laptop, error) {
	l, err := lab.New(ctx, o)
	if err != nil {
		return nil, err
	}
	p := &laptop{Lab: l}
	if err := p.begin(ctx, bare); err != nil {
		log, _ := l.Daemon().Log()
		l.Close()
		return nil, fmt.Errorf("%w\n%s", err, log)
	}
	return p, nil
}

func (p *laptop) begin(ctx context.Context, bare bool) (err error) {
	for _, s := range p.Sites {
		if !s.Options.Unplugged {
			if err := p.waitActivated(ctx, cmp.Or(s.Options.Bridge, s.Uplink)); err != nil {
				return err
			}
		}
	}
	if err := p.NM.WaitPrimary(ctx, p.Expected()); err != nil {
		return err
	}
	if p.bus, err = p.Bus(); err != nil {
		return err
	}
	if bare {
		return nil
	}
	if err := p.call(ctx, root, "Manager.NetworkByName", "default").Store(&p.network); err != nil {
		return err
	}
	if p.guest, err = p.addGuest(ctx, "g", p.network); err != nil {
		return err
	}
	p.signals = make(chan *godbus.Signal, 4096)
	p.bus.Signal(p.signals)
	for _, sender := range []string{busName, "org.freedesktop.NetworkManager"} {
		if err := p.bus.AddMatchSignal(godbus.WithMatchSender(sender)); err != nil {
			return err
		}
	}
	return nil
}

func (p *laptop) call(ctx context.Context, path godbus.ObjectPath, member string, args ...any) *godbus.Call {
	return p.bus.Object(busName, path).CallWithContext(ctx, busName+"."+member, 0, args...)
}

func (p *laptop) addGuest(ctx context.Context, name string, network godbus.ObjectPath) (*lab.Guest, error) {
	g, err := p.AddGuest(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := p.waitProperty(ctx, network, "Network.State", func(v any) bool { return v == "active" }); err != nil {
		return nil, err
	}
	if err := p.call(ctx, network, "Network.Attach", g.Port, map[string]godbus.Variant{}).Err; err != nil {
		return nil, err
	}
	if err := g.DHCP(ctx); err != nil {
		return nil, err
	}
	lease, err := g.WaitLease(ctx, netip.Prefix{})
	p.gateway = lease.Router
	return g, err
}

func (p *laptop) waitProperty(ctx context.Context, path godbus.ObjectPath, property string, ok func(any) bool) error {
	return wait(ctx, property, func() bool {
		v, err := p.bus.Object(busName, path).GetProperty(busName + "." + property)
		return err == nil && ok(v.Value())
	})
}

func (p *laptop) waitActivated(ctx context.Context, ifname string) error {
	return wait(ctx, ifname+" activated", func() bool {
		state, err := p.NM.Cli(ctx, "-g", "GENERAL.STATE", "device", "show", ifname)
		return err == nil && strings.HasPrefix(state, "100")
	})
}

// waitMoored waits until guests and host are on the uplink.
func (p *laptop) waitMoored(ctx context.Context, ifname string) error {
	if err := p.NM.WaitPrimary(ctx, ifname); err != nil {
		return err
	}
	return p.waitUplink(ctx, ifname)
}

// waitUplink waits until guests are on the uplink.
func (p *laptop) waitUplink(ctx context.Context, ifname string) error {
	return p.waitProperty(ctx, p.network, "Network.Uplink", func(v any) bool {
		path, _ := v.(godbus.ObjectPath)
		return strings.HasSuffix(string(path), "/"+ifname)
	})
}

// quiet waits out what earlier changes may still cause: the kernel announces changes of
// carrier at most once a second.
func quiet(ctx context.Context) error { return pause(ctx, 1500*time.Millisecond) }

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func wait(ctx context.Context, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for !ok() {
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("cannot see %s: %w", what, err)
		}
	}
	return nil
}

// watchPrimary returns a function that tells when NetworkManager's signal of a new
// PrimaryConnection arrived at a client, and stops watching.
func (p *laptop) watchPrimary() (func() (at time.Time, ok bool), error) {
	conn, err := p.Bus()
	if err != nil {
		return nil, err
	}
	signals := make(chan *godbus.Signal, 64)
	conn.Signal(signals)
	if err := conn.AddMatchSignal(godbus.WithMatchSender("org.freedesktop.NetworkManager"),
		godbus.WithMatchObjectPath("/org/freedesktop/NetworkManager"), godbus.WithMatchMember("PropertiesChanged")); err != nil {
		conn.Close()
		return nil, err
	}
	arrived := make(chan time.Time, 64)
	go func() {
		defer close(arrived)
		for s := range signals {
			if len(s.Body) < 2 {
				continue
			}
			changed, _ := s.Body[1].(map[string]godbus.Variant)
			if _, ok := changed["PrimaryConnection"]; ok {
				arrived <- time.Now()
			}
		}
	}()
	return func() (time.Time, bool) {
		conn.Close() // closes the channel of signals
		var last time.Time
		for at := range arrived {
			last = at
		}
		return last, !last.IsZero()
	}, nil
}

// switched returns when the last change to the uplink was noticed, and when IPv4 was done.
func (p *laptop) switched(to string) (detected, natDone time.Duration, ok bool) {
	return p.report(to, "nat-done")
}

// told is switched for what guests are told of IPv6.
func (p *laptop) told(to string) (detected, ipv6Done time.Duration, ok bool) {
	return p.report(to, "ipv6-done")
}

// report returns times of the last Switched report to the uplink.
func (p *laptop) report(to, key string) (detected, done time.Duration, ok bool) {
	for len(p.signals) > 0 {
		s := <-p.signals
		if s.Name != busName+".Manager.Switched" || len(s.Body) != 3 {
			continue
		}
		target, _ := s.Body[1].(godbus.ObjectPath)
		report, _ := s.Body[2].(map[string]godbus.Variant)
		if strings.HasSuffix(string(target), "/"+to) {
			detected, done, ok = micros(report["detected"]), micros(report[key]), true
		}
	}
	return detected, done, ok
}

func micros(v godbus.Variant) time.Duration {
	us, _ := v.Value().(uint64)
	return time.Duration(us) * time.Microsecond
}

// monotonic is the clock of the times in Gangway's reports.
func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return time.Duration(ts.Nano())
}

// memory returns resident and proportional set size of a process in MiB.
func memory(pid int) (rss, pss float64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, 0, err
	}
	for _, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kib, _ := strconv.ParseFloat(f[1], 64)
		switch f[0] {
		case "Rss:":
			rss = kib / 1024
		case "Pss:":
			pss = kib / 1024
		}
	}
	return rss, pss, nil
}
