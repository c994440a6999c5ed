package bus

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"gangway/dbus"
	"gangway/policy"
)

const (
	// patience bounds every wait for something that must happen.
	patience  = 60 * time.Second
	dirPrefix = "/tmp/gangway-bus-"
	nobody    = 65534
)

func TestMain(m *testing.M) {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "the tests of the bus need root")
		os.Exit(1)
	}
	sweep()
	os.Exit(m.Run())
}

// sweep removes what runs that were killed have left: processes that mention their directory, and that.
func sweep() {
	dirs, _ := filepath.Glob(dirPrefix + "*")
	for _, dir := range dirs {
		owner, _, _ := strings.Cut(strings.TrimPrefix(dir, dirPrefix), "-")
		if pid, err := strconv.Atoi(owner); err != nil || unix.Kill(pid, 0) == nil {
			continue
		}
		procs, _ := filepath.Glob("/proc/[0-9]*")
		for _, proc := range procs {
			cmdline, _ := os.ReadFile(proc + "/cmdline")
			environ, _ := os.ReadFile(proc + "/environ")
			if strings.Contains(string(cmdline)+string(environ), dir) {
				if pid, err := strconv.Atoi(filepath.Base(proc)); err == nil && pid != os.Getpid() {
					unix.Kill(pid, unix.SIGKILL)
				}
			}
		}
		os.RemoveAll(dir)
	}
}

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <auth>EXTERNAL</auth>
  <listen>unix:path=%[1]s/socket</listen>
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
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  <policy user="root">
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Monitoring"/>
  </policy>
  <include>/usr/share/dbus-1/system.d/org.freedesktop.PolicyKit1.conf</include>
  <include>%[2]s</include>
</busconfig>
`

// daemon is a bus of a test's own.
type daemon struct {
	t       testing.TB
	dir     string
	address string
	process *exec.Cmd
}

func startDaemon(t testing.TB) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", filepath.Base(dirPrefix)+strconv.Itoa(os.Getpid())+"-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755)) // other users come here
	conf, err := filepath.Abs("../../data/org.gangway.Gangway1.conf")
	must(t, err)
	must(t, os.WriteFile(dir+"/bus.conf", fmt.Appendf(nil, busConfig, dir, conf), 0o644))
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	cmd := exec.Command("dbus-daemon", "--config-file="+dir+"/bus.conf", "--nofork", "--nopidfile", "--print-address=3")
	cmd.Stderr, cmd.ExtraFiles = os.Stderr, []*os.File{w}
	must(t, cmd.Start())
	w.Close()
	t.Cleanup(func() { end(cmd) })
	if _, err := bufio.NewReader(r).ReadString('\n'); err != nil {
		t.Fatalf("dbus-daemon does not listen: %v", err)
	}
	return &daemon{t, dir, "unix:path=" + dir + "/socket", cmd}
}

func end(cmd *exec.Cmd) {
	cmd.Process.Signal(unix.SIGCONT) // one that is stopped ends, too
	cmd.Process.Kill()
	cmd.Wait()
}

// dial connects as a user: the bus, and polkit after it, see uid as the peer.
func (d *daemon) dial(uid int) net.Conn {
	d.t.Helper()
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its credentials
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			done <- result{nil, errno}
			return
		}
		// The kernel notes the credentials at connect().
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: strings.TrimPrefix(d.address, "unix:path=")})
		}
		if err != nil {
			done <- result{nil, err}
			return
		}
		file := os.NewFile(uintptr(fd), "bus")
		conn, err := net.FileConn(file)
		file.Close()
		done <- result{conn, err}
	}()
	r := <-done
	must(d.t, r.err)
	return r.conn
}

// client is a connection that delivers signals in order, closed at the end of the test.
func (d *daemon) client(uid int) *godbus.Conn {
	d.t.Helper()
	conn, _ := d.rawClient(uid)
	return conn
}

// rawClient is client with the socket, for messages that godbus doesn't write.
func (d *daemon) rawClient(uid int) (*godbus.Conn, net.Conn) {
	d.t.Helper()
	socket := d.dial(uid)
	conn, err := godbus.NewConn(socket, godbus.WithSignalHandler(godbus.NewSequentialSignalHandler()))
	must(d.t, err)
	d.t.Cleanup(func() { conn.Close() })
	must(d.t, conn.Auth([]godbus.Auth{godbus.AuthExternal(strconv.Itoa(uid))}))
	must(d.t, conn.Hello())
	return conn, socket
}

// polkit is a real polkitd that knows our actions alone, with rules of the test's.
type polkit struct {
	*daemon
	process    *exec.Cmd
	root       *godbus.Conn
	generation int // of the rules that were written last
}

// startPolkit starts polkitd with the rules, JavaScript as in polkit(8).
func (d *daemon) startPolkit(rules string) *polkit {
	d.t.Helper()
	for _, dir := range []string{"actions", "rules", "none"} {
		must(d.t, os.MkdirAll(filepath.Join(d.dir, dir), 0o755))
	}
	b, err := os.ReadFile("../../data/org.gangway.Gangway1.policy")
	must(d.t, err)
	must(d.t, os.WriteFile(d.dir+"/actions/org.gangway.Gangway1.policy", b, 0o644))
	must(d.t, os.WriteFile(d.dir+"/actions/test.policy", []byte(generationPolicy), 0o644))
	must(d.t, os.WriteFile(d.dir+"/rules/10-test.rules", []byte(rules), 0o644))
	p := &polkit{daemon: d, root: d.client(0)}
	p.process = exec.Command("sh", "-ec", `
		mount --bind "$1/actions" /usr/share/polkit-1/actions
		mount --bind "$1/none" /usr/share/polkit-1/rules.d
		mount --bind "$1/rules" /etc/polkit-1/rules.d
		exec /usr/lib/polkit-1/polkitd --no-debug`, "sh", d.dir)
	p.process.Env = append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+d.address)
	p.process.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS} // which makes all mounts private, too
	p.process.Stderr = os.Stderr
	must(d.t, p.process.Start())
	d.t.Cleanup(func() { end(p.process) })
	eventually(d.t, "polkitd has its name", func() bool { return owned(p.root, "org.freedesktop.PolicyKit1") })
	return p
}

// setRules replaces the rules and returns when polkitd goes by them. Its signal doesn't tell: it may be
// the echo of an earlier change. An action of the test's own, allowed for this generation alone, does.
func (p *polkit) setRules(rules string) {
	p.t.Helper()
	p.generation++
	mark := fmt.Sprintf("polkit.addRule(function(action, subject) { if (action.id == %q && action.lookup(%q) == %q) return polkit.Result.YES; });\n",
		generationAction, "generation", fmt.Sprint(p.generation))
	must(p.t, os.WriteFile(p.dir+"/new.rules", []byte(mark+rules), 0o644))
	must(p.t, os.Rename(p.dir+"/new.rules", p.dir+"/rules/10-test.rules")) // one event
	nobody := p.client(65534)                                              // root is never refused
	defer nobody.Close()
	subject := struct {
		Kind    string
		Details map[string]godbus.Variant
	}{"system-bus-name", map[string]godbus.Variant{"name": godbus.MakeVariant(nobody.Names()[0])}}
	details := map[string]string{"generation": fmt.Sprint(p.generation)}
	eventually(p.t, "polkitd reads its rules", func() bool {
		var result struct {
			Authorized, Challenge bool
			Details               map[string]string
		}
		must(p.t, p.root.Object("org.freedesktop.PolicyKit1", "/org/freedesktop/PolicyKit1/Authority").Call(
			"org.freedesktop.PolicyKit1.Authority.CheckAuthorization", 0, subject, generationAction, details, uint32(0), "").Store(&result))
		return result.Authorized
	})
}

const generationAction = "org.gangway.Test1.generation"

const generationPolicy = `<?xml version="1.0" encoding="UTF-8"?>
<policyconfig><action id="` + generationAction + `"><description>Test</description><message>Test</message>
<defaults><allow_any>no</allow_any><allow_inactive>no</allow_inactive><allow_active>no</allow_active></defaults></action></policyconfig>
`

// allow is a rule that says yes to exactly these actions.
func allow(actions ...policy.Action) string {
	var quoted []string
	for _, a := range actions {
		quoted = append(quoted, strconv.Quote(string(a)))
	}
	return fmt.Sprintf("polkit.addRule(function(action, subject) { if ([%s].indexOf(action.id) >= 0) return polkit.Result.YES; });\n", strings.Join(quoted, ", "))
}

const refuse = `polkit.addRule(function(action, subject) { return polkit.Result.NO; });`

// fixture is our server on a bus.
type fixture struct {
	*daemon
	backend *backend
	conn    *dbus.Conn
	server  *dbus.Server
	checker *policy.Checker
}

func startServer(t testing.TB, options policy.Options) *fixture {
	t.Helper()
	d := startDaemon(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := dbus.Connect(ctx, d.address)
	must(t, err)
	f := &fixture{daemon: d, backend: newBackend(), conn: conn, checker: policy.New(conn.Conn, options)}
	f.server = dbus.New(dbus.Options{Conn: conn, Backend: f.backend, Policy: f.checker, Version: "1.2.3"})
	must(t, f.server.Start())
	must(t, f.server.RequestName(ctx))
	t.Cleanup(func() {
		f.server.Close()
		f.checker.Close()
		f.backend.close()
		conn.Close()
	})
	return f
}

func owned(conn *godbus.Conn, name string) bool {
	var has bool
	conn.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, name).Store(&has)
	return has
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
