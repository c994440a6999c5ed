package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"gangway/dbus"
	"gangway/policy"
	"gangway/service"
	"gangway/service/dnsmasq"
	"gangway/service/firewall"
	"gangway/service/gate"
	"gangway/service/link"
	"gangway/service/ndp"
	"gangway/service/plan"
	"gangway/service/store"
	"gangway/service/uplink"
)

// defaultIdleExit is how long the daemon stays with nothing to do: long enough that a
// person who tries a few calls doesn't pay for activation each time.
const defaultIdleExit = 2 * time.Minute

type options struct {
	address  string
	dryRun   bool
	debug    bool
	idleExit time.Duration
	log      *slog.Logger
}

var (
	errReexec  = errors.New("reload asked for")
	errBusLost = errors.New("the system bus is gone; networks are left as they are")
)

// muteVariable is for tests: with it set in the environment guests aren't told that routers and prefixes
// are withdrawn, which shows what happens to them then.
const muteVariable = "GANGWAY_TEST_MUTE_WITHDRAWALS"

// run is one life of the daemon. It returns nil after an orderly stop, which leaves the
// machine as it was, and an error when the machine is left as it is for the next life.
func run(ctx context.Context, o options) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)

	dirs, err := directories(o.dryRun)
	if err != nil {
		return err
	}
	defer dirs.remove()
	conn, err := dbus.Connect(ctx, o.address)
	if err != nil {
		return fmt.Errorf("cannot connect to the system bus: %w", err)
	}
	defer conn.Close()
	files, err := store.Open(store.Options{ConfigDir: dirs.config, StateDir: dirs.state, RuntimeDir: dirs.runtime,
		DataDir: dirs.data, Log: o.log})
	if err != nil {
		return err
	}
	if err := files.EnsureDefault(); err != nil {
		o.log.Error("cannot define the default network", "error", err)
	}
	filter, err := firewall.New(firewall.Options{Log: o.log, RuntimeDir: dirs.runtime})
	if err != nil {
		return err
	}
	servers, err := dnsmasq.New(dnsmasq.Options{RuntimeDir: dirs.servers, StateDir: dirs.state, LookOnly: o.dryRun,
		Bus: conn.Conn, BusAddress: o.address, Log: o.log})
	if err != nil {
		return err
	}
	routers, err := ndp.New(ndp.Options{StateDir: dirs.state, Log: o.log, Mute: os.Getenv(muteVariable) != ""})
	if err != nil {
		return err
	}
	defer routers.Close()
	watchdog, err := gate.New(gate.Options{RuntimeDir: dirs.servers, Log: o.log})
	if err != nil {
		return err
	}
	svc, err := service.New(service.Options{
		Rooms: service.Rooms{
			Kernel:   link.New(link.Options{RuntimeDir: dirs.runtime, Log: o.log}),
			Firewall: filter,
			Servers:  servers,
			Uplinks:  uplink.New(uplink.Options{Bus: conn.Conn, Log: o.log}),
			NDP:      routers,
			Gate:     watchdog,
			Store:    files,
		},
		Monotonic: monotonic,
		Log:       o.log,
	})
	if err != nil {
		return err
	}
	ops, err := svc.Prime(ctx)
	if err != nil {
		o.log.Error("first look at the machine failed", "error", err)
	}
	if o.dryRun {
		for _, op := range ops {
			if _, ok := op.(plan.Serve); !ok { // what a daemon that runs has in its memory can't be seen from here
				fmt.Println(op)
			}
		}
		return err
	}
	checker := policy.New(conn.Conn, policy.Options{Log: o.log})
	defer checker.Close()
	server := dbus.New(dbus.Options{Conn: conn, Backend: svc, Policy: checker, Version: version, Features: features, Log: o.log})
	if err := server.Start(); err != nil {
		return err
	}
	defer server.Close()
	if err := server.RequestName(ctx); err != nil {
		return err
	}
	return live(ctx, o, svc, server, conn, signals)
}

// features are what this version can do, as the Features property lists them.
var features = []string{"nat", "routed", "isolated", "dhcp", "dns", "attach", "renumber", "vpn-policy", "uplink-pinning", "isolate-ports",
	"ipv6-bridge", "ipv6-proxy", "ipv6-routed", "ipv6-nat66", "sharing"}

// live runs the loop until something ends it.
func live(ctx context.Context, o options, svc *service.Service, server *dbus.Server, conn *dbus.Conn, signals <-chan os.Signal) error {
	loop, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- svc.Run(loop) }()
	defer func() {
		stop()
		<-ended
	}()
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		o.log.Warn("cannot tell systemd that we are ready", "error", err)
	}
	idle := newIdleTimer(o.idleExit, svc, server)
	defer idle.stop()
	for {
		select {
		case <-conn.Lost():
			return errBusLost
		case <-idle.c:
			if idle.expired() {
				o.log.Info("idle, no network runs")
				return nil
			}
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				return errReexec
			}
			o.log.Info("stopping", "signal", sig.String())
			daemon.SdNotify(false, daemon.SdNotifyStopping)
			takeDown, cancel := context.WithTimeout(ctx, 30*time.Second)
			defer cancel()
			return svc.Shutdown(takeDown)
		}
	}
}

// reexec replaces the process by the binary of its name, which may be a newer one: reading
// all files afresh and taking over what runs is the same path as after a crash.
func reexec() error {
	path, err := os.Executable()
	if err != nil {
		return err
	}
	path = strings.TrimSuffix(path, " (deleted)") // replaced by an upgrade
	return fmt.Errorf("cannot execute %q: %w", path, syscall.Exec(path, os.Args, os.Environ()))
}
