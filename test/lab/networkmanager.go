package lab

import (
	"context"
	"fmt"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

const (
	nmName = "org.freedesktop.NetworkManager"
	nmPath = "/org/freedesktop/NetworkManager"
)

// NetworkManager is the laptop's. Its methods are not for concurrent use, but for the waiting ones and Cli.
type NetworkManager struct {
	lab *Lab
	p   *process
}

// Start starts NetworkManager and returns when it owns its name; it then goes on to configure the uplinks.
func (m *NetworkManager) Start(ctx context.Context) (err error) {
	if m.p, err = m.lab.spawn(m.lab.Laptop, "networkmanager", "NetworkManager", "--debug"); err != nil {
		return err
	}
	return m.lab.waitName(ctx, nmName, m.p)
}

// Stop ends NetworkManager by SIGTERM; it leaves the interfaces configured, as on a real laptop.
func (m *NetworkManager) Stop(ctx context.Context) error { return m.end(ctx, unix.SIGTERM) }

// Kill ends NetworkManager by SIGKILL.
func (m *NetworkManager) Kill(ctx context.Context) error { return m.end(ctx, unix.SIGKILL) }

// Restart is Stop and Start.
func (m *NetworkManager) Restart(ctx context.Context) error {
	if err := m.Stop(ctx); err != nil {
		return err
	}
	return m.Start(ctx)
}

func (m *NetworkManager) end(ctx context.Context, sig unix.Signal) error {
	if err := m.p.stop(ctx, sig); err != nil {
		return err
	}
	return m.lab.waitName(ctx, nmName, nil)
}

// PID is NetworkManager's process, 0 before the first start.
func (m *NetworkManager) PID() int {
	if m.p == nil {
		return 0
	}
	return m.p.cmd.Process.Pid
}

// Cli runs nmcli on the laptop and returns its output.
func (m *NetworkManager) Cli(ctx context.Context, args ...string) (string, error) {
	return m.lab.Laptop.Run(ctx, append([]string{"nmcli"}, args...)...)
}

// Primary returns the interface of NetworkManager's PrimaryConnection, "" if there is none.
func (m *NetworkManager) Primary(ctx context.Context) (string, error) {
	var active, device godbus.ObjectPath
	var devices []godbus.ObjectPath
	var ifname string
	if err := m.get(ctx, nmPath, nmName, "PrimaryConnection", &active); err != nil || active == "/" {
		return "", err
	}
	if err := m.get(ctx, active, nmName+".Connection.Active", "Devices", &devices); err != nil || len(devices) == 0 {
		return "", err
	}
	device = devices[0]
	err := m.get(ctx, device, nmName+".Device", "Interface", &ifname)
	return ifname, err
}

func (m *NetworkManager) get(ctx context.Context, path godbus.ObjectPath, iface, property string, value any) error {
	call := m.lab.conn.Object(nmName, path).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, iface, property)
	if err := call.Store(value); err != nil {
		return fmt.Errorf("cannot read %q of NetworkManager: %w", property, err)
	}
	return nil
}

// WaitPrimary waits until NetworkManager's PrimaryConnection is that of the interface; "" waits for none.
// It reads anew upon every signal of NetworkManager's, so it is right to a millisecond or so.
func (m *NetworkManager) WaitPrimary(ctx context.Context, ifname string) error {
	conn, err := m.lab.Bus()
	if err != nil {
		return err
	}
	defer conn.Close()
	signals := make(chan *godbus.Signal, 64)
	conn.Signal(signals)
	for _, match := range [][]godbus.MatchOption{
		{godbus.WithMatchSender(nmName), godbus.WithMatchObjectPath(nmPath)},
		{godbus.WithMatchMember("NameOwnerChanged"), godbus.WithMatchArg(0, nmName)},
	} {
		if err := conn.AddMatchSignalContext(ctx, match...); err != nil {
			return fmt.Errorf("cannot watch NetworkManager: %w", err)
		}
	}
	for {
		now, err := m.Primary(ctx)
		if err == nil && now == ifname {
			return nil
		}
		select {
		case <-signals:
		case <-ctx.Done():
			return fmt.Errorf("cannot see NetworkManager's primary connection become %q, it is %q: %w (%v)", ifname, now, context.Cause(ctx), err)
		}
	}
}
