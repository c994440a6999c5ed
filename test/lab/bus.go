package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// busConfig is the distribution's system.conf with a socket and service directory of the lab's own. There
// is no servicehelper: the bus starts services itself, with its own environment, inside the laptop.
// The distribution's service directory is left out, or its polkitd would come up in a lab that has none.
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <auth>EXTERNAL</auth>
  <listen>unix:path=%[1]s/run/dbus/system_bus_socket</listen>
  <servicedir>%[1]s/bus/services</servicedir>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Introspectable"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Properties"/>
    <deny send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus" send_member="UpdateActivationEnvironment"/>
    <deny send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Debug.Stats"/>
  </policy>
  <policy user="root">
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Monitoring"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Debug.Stats"/>
  </policy>
  <includedir>/usr/share/dbus-1/system.d</includedir>
  <includedir>/etc/dbus-1/system.d</includedir>
  <includedir>%[1]s/bus/policy.d</includedir>
</busconfig>
`

// environment is what the bus and all that it activates run in, as systemd would set it for a unit.
func (l *Lab) environment() []string {
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root",
		"DBUS_SYSTEM_BUS_ADDRESS=unix:path=" + filepath.Join(l.dir, "run/dbus/system_bus_socket"),
		"STATE_DIRECTORY=" + filepath.Join(l.dir, "state/gangway"),
		"RUNTIME_DIRECTORY=/run/gangway",
		"CONFIGURATION_DIRECTORY=" + filepath.Join(l.dir, "etc/gangway"),
	}
	for _, key := range []string{"GOCOVERDIR", "GORACE", "GODEBUG", "GOTRACEBACK"} {
		if value, ok := os.LookupEnv(key); ok {
			env = append(env, key+"="+value)
		}
	}
	return append(env, l.options.GangwaydEnv...)
}

func (l *Lab) writeBus() error {
	if err := os.WriteFile(filepath.Join(l.dir, "bus/bus.conf"), fmt.Appendf(nil, busConfig, l.dir), 0o644); err != nil {
		return fmt.Errorf("cannot write bus configuration: %w", err)
	}
	if err := gather(l.options.BusPolicyDir, "*.conf", "<busconfig", filepath.Join(l.dir, "bus/policy.d")); err != nil {
		return err
	}
	if err := gather(l.options.ServiceDir, "*.service", "[D-BUS Service]", filepath.Join(l.dir, "bus/services")); err != nil {
		return err
	}
	return l.writeActivation()
}

// gather copies the files of a directory that match the glob and contain the mark; no directory is fine.
func gather(from, glob, mark, to string) error {
	if from == "" {
		return nil
	}
	if _, err := os.Stat(from); err != nil {
		return fmt.Errorf("cannot gather %s: %w", glob, err)
	}
	paths, _ := filepath.Glob(filepath.Join(from, glob)) // the pattern is well-formed
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("cannot gather %s: %w", glob, err)
		}
		if !bytes.Contains(b, []byte(mark)) {
			continue
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(path)), b, 0o644); err != nil {
			return fmt.Errorf("cannot gather %s: %w", glob, err)
		}
	}
	return nil
}

// startBus starts the laptop's system bus and returns when it listens.
func (l *Lab) startBus(ctx context.Context) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("cannot start bus: %w", err)
	}
	defer r.Close()
	l.bus, err = l.spawnWith(l.Laptop, "bus", []*os.File{w}, "dbus-daemon", "--config-file="+filepath.Join(l.dir, "bus/bus.conf"), "--nofork", "--nopidfile", "--print-address=3")
	w.Close()
	if err != nil {
		return err
	}
	// The address comes once it listens; end of file if it dies first.
	if _, err := bufio.NewReader(r).ReadString('\n'); err != nil {
		log, _ := l.Log("bus") // the first error is the one that matters
		return fmt.Errorf("cannot start bus: %w: %s", err, strings.TrimSpace(log))
	}
	if l.conn, err = l.Bus(); err != nil {
		return err
	}
	return ctx.Err()
}

// BusAddress is the address of the laptop's system bus; it is reachable from outside the lab's namespaces too.
func (l *Lab) BusAddress() string {
	return "unix:path=" + filepath.Join(l.dir, "run/dbus/system_bus_socket")
}

// Bus returns a new connection to the laptop's system bus as root; the caller closes it.
func (l *Lab) Bus(options ...godbus.ConnOption) (*godbus.Conn, error) {
	conn, err := godbus.Connect(l.BusAddress(), options...)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to the lab's bus: %w", err)
	}
	return conn, nil
}

// BusAs is Bus for another user: the bus, and polkit after it, see uid as the peer.
func (l *Lab) BusAs(uid, gid int, options ...godbus.ConnOption) (*godbus.Conn, error) {
	var sock net.Conn
	err := onThread(func() (err error) {
		// The raw calls change this thread alone; the kernel notes the credentials at connect().
		if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
			return errno
		}
		for _, id := range [][2]uintptr{{unix.SYS_SETRESGID, uintptr(gid)}, {unix.SYS_SETRESUID, uintptr(uid)}} {
			if _, _, errno := unix.RawSyscall(id[0], ^uintptr(0), id[1], ^uintptr(0)); errno != 0 {
				return errno
			}
		}
		sock, err = net.Dial("unix", strings.TrimPrefix(l.BusAddress(), "unix:path="))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot connect to the lab's bus as user %d: %w", uid, err)
	}
	conn, err := godbus.NewConn(sock, options...)
	if err == nil {
		err = conn.Auth([]godbus.Auth{godbus.AuthExternal(strconv.Itoa(uid))})
	}
	if err == nil {
		err = conn.Hello()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot log in to the lab's bus as user %d: %w", uid, err), sock.Close())
	}
	return conn, nil
}

// owner returns the process that owns a name on the bus.
func (l *Lab) owner(ctx context.Context, name string) (pid int, err error) {
	var n uint32
	if err := l.conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetConnectionUnixProcessID", 0, name).Store(&n); err != nil {
		return 0, fmt.Errorf("cannot find owner of %q: %w", name, err)
	}
	return int(n), nil
}

// waitName waits until a name on the bus is owned by the process, or, for none, by nobody.
func (l *Lab) waitName(ctx context.Context, name string, p *process) error {
	err := poll(ctx, func() (bool, error) {
		var owned bool
		err := l.conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, name).Store(&owned)
		if p != nil && !owned {
			if err := p.alive(); err != nil {
				return false, err
			}
		}
		return owned == (p != nil), err
	})
	if err != nil {
		return fmt.Errorf("cannot wait for bus name %q: %w", name, err)
	}
	return nil
}
