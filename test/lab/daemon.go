package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// daemonName is what gangwayd owns on the bus.
const daemonName = "org.gangway.Gangway1"

// Daemon is gangwayd, which the laptop's bus starts upon the first message, as on a real system.
type Daemon struct{ lab *Lab }

// Daemon returns the handle of gangwayd; Options.Gangwayd says which.
func (l *Lab) Daemon() *Daemon { return l.daemon }

func (l *Lab) writeActivation() error {
	if l.options.Gangwayd == "" {
		return nil
	}
	bin, err := filepath.Abs(l.options.Gangwayd)
	if err == nil {
		_, err = os.Stat(bin)
	}
	if err != nil {
		return fmt.Errorf("cannot use gangwayd %q: %w", l.options.Gangwayd, err)
	}
	words := make([]string, 0, 1+len(l.options.GangwaydArgs))
	for _, w := range append([]string{bin}, l.options.GangwaydArgs...) {
		words = append(words, "'"+strings.ReplaceAll(w, "'", `'\''`)+"'")
	}
	script := filepath.Join(l.dir, "bus/gangwayd")
	if err := os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\nexec %s >>%s 2>&1\n", strings.Join(words, " "), l.logPath("gangwayd")), 0o755); err != nil {
		return fmt.Errorf("cannot write activation script: %w", err)
	}
	unit := fmt.Sprintf("[D-BUS Service]\nName=%s\nExec=%s\nUser=root\n", daemonName, script)
	// Also over the file of that name that Options.ServiceDir may have brought: its Exec is the installed daemon.
	if err := os.WriteFile(filepath.Join(l.dir, "bus/services", daemonName+".service"), []byte(unit), 0o644); err != nil {
		return fmt.Errorf("cannot write activation file: %w", err)
	}
	return nil
}

// Activate has the bus start gangwayd, if it isn't running, and returns when it owns its name.
func (d *Daemon) Activate(ctx context.Context) error {
	var result uint32
	if err := d.lab.conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.StartServiceByName", 0, daemonName, uint32(0)).Store(&result); err != nil {
		return fmt.Errorf("cannot activate %q: %w", daemonName, err)
	}
	return nil
}

// PID is the process that owns gangwayd's name; an error wrapping org.freedesktop.DBus.Error.NameHasNoOwner if none does.
func (d *Daemon) PID(ctx context.Context) (int, error) { return d.lab.owner(ctx, daemonName) }

// Kill sends the signal to gangwayd and waits until its process has ended.
func (d *Daemon) Kill(ctx context.Context, sig unix.Signal) error {
	pid, err := d.PID(ctx)
	if err != nil {
		return err
	}
	start, err := startTime(pid)
	if err != nil {
		return err
	}
	if err := unix.Kill(pid, sig); err != nil {
		return fmt.Errorf("cannot signal gangwayd: %w", err)
	}
	err = poll(ctx, func() (bool, error) {
		now, err := startTime(pid)
		return err != nil || now != start, nil
	})
	if err != nil {
		return fmt.Errorf("cannot see gangwayd end: %w", err)
	}
	// Whoever calls next must not reach the name of the dead.
	return d.lab.waitName(ctx, daemonName, nil)
}

// Log returns what gangwayd has written to its standard output and error, over all its lives.
func (d *Daemon) Log() (string, error) { return d.lab.Log("gangwayd") }

// terminate ends gangwayd in order, if it runs.
func (d *Daemon) terminate(ctx context.Context) error {
	err := d.Kill(ctx, unix.SIGTERM)
	var berr godbus.Error
	if errors.As(err, &berr) && berr.Name == "org.freedesktop.DBus.Error.NameHasNoOwner" {
		return nil
	}
	return err
}
