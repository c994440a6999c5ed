package dnsmasq

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// The tests run the real dnsmasq on a real bus. TestMain runs the test binary again as the
// first process of a process, network and mount namespace of its own, with its own /run:
// whatever a test leaves, and however it ends, all of it goes with that process.
const labVariable = "GANGWAY_DNSMASQ_LAB"

func TestMain(m *testing.M) {
	switch os.Getenv(labVariable) {
	case "":
		os.Exit(runInLab())
	case "daemon":
		os.Exit(runDaemon())
	case "fake":
		fmt.Println("here")
		time.Sleep(time.Hour)
	}
	if err := prepareLab(); err != nil {
		fmt.Fprintln(os.Stderr, "cannot prepare the lab:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func runInLab() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), labVariable+"=tests")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "the tests of dnsmasq need root, dnsmasq, dbus-daemon, udhcpc and dig:", err)
		return 1
	}
	return 0
}

func prepareLab() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return startBus()
}

const labBus = "unix:path=/run/lab-bus"

// startBus starts a bus that denies by default, as the system bus does; the two allowances
// for root are all that the room needs of the bus's policy.
func startBus() error {
	const config = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>` + labBus + `</listen>
  <auth>EXTERNAL</auth>
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
    <allow own_prefix="` + BusNamePrefix + `"/>
    <allow send_destination_prefix="` + BusNamePrefix + `"/>
  </policy>
</busconfig>`
	if err := os.WriteFile("/run/lab-bus.conf", []byte(config), 0o644); err != nil {
		return err
	}
	cmd := exec.Command("dbus-daemon", "--config-file=/run/lab-bus.conf", "--fork", "--nopidfile", "--print-address")
	out, err := cmd.Output() // it forks when it listens
	if err != nil {
		return fmt.Errorf("dbus-daemon: %w: %s", err, out)
	}
	return nil
}

// lab is what a test works with: a room with directories of its own.
type lab struct {
	*testing.T
	room    *Room
	options Options
}

func newLab(t *testing.T) *lab {
	t.Helper()
	dir, err := os.MkdirTemp("/run", "lab-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	bus, err := godbus.Connect(labBus)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bus.Close() })
	l := &lab{T: t, options: Options{RuntimeDir: dir + "/run", StateDir: dir + "/state", Bus: bus, BusAddress: labBus,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil))}}
	l.room = l.newRoom()
	t.Cleanup(func() {
		servers, _, err := l.room.Observe(context.Background())
		if err != nil {
			t.Error(err)
		}
		for _, s := range servers {
			if t.Failed() {
				log, _ := os.ReadFile(l.room.files(s.Network).log)
				t.Logf("log of %s:\n%s", s.Network, log)
			}
			l.apply(plan.StopServer{Network: s.Network})
		}
		os.RemoveAll(dir)
	})
	return l
}

func (l *lab) newRoom() *Room {
	l.Helper()
	r, err := New(l.options)
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(r.Close)
	return r
}

// apply applies the operations, none of which may fail.
func (l *lab) apply(ops ...plan.Op) {
	l.Helper()
	for i, o := range l.room.Apply(context.Background(), ops) {
		if o.Err != nil {
			l.Fatalf("%s: %v", ops[i], o.Err)
		}
	}
}

func (l *lab) observe() ([]vnet.Server, map[string][]vnet.Lease) {
	l.Helper()
	servers, leases, err := l.room.Observe(context.Background())
	if err != nil {
		l.Fatal(err)
	}
	return servers, leases
}

// one returns the only server.
func (l *lab) one() vnet.Server {
	l.Helper()
	servers, _ := l.observe()
	if len(servers) != 1 {
		l.Fatalf("%d servers, want 1: %v", len(servers), servers)
	}
	return servers[0]
}

func sh(t testing.TB, script string, args ...any) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", fmt.Sprintf(script, args...)).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", fmt.Sprintf(script, args...), err, out)
	}
	return strings.TrimSpace(string(out))
}

// eventually waits until the condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// network makes the bridge NAME-br with the address and returns what is to be served on it.
func (l *lab) network(name, address string) plan.ServerSpec {
	l.Helper()
	spec := testSpec(name, address)
	sh(l, "ip link add %[1]s type bridge; ip addr add %[2]s brd + dev %[1]s; ip link set %[1]s up", spec.Bridge, address)
	l.Cleanup(func() { sh(l, "ip link del %s", spec.Bridge) })
	return spec
}

func testSpec(name, address string) plan.ServerSpec {
	p := netip.MustParsePrefix(address)
	first := p.Addr().Next()
	return plan.ServerSpec{Network: name, Bridge: name + "-br", Address: p, First: first,
		Last: vnet.LastAddress(p).Prev(), Router: true, Domain: vnet.DefaultDomain(name), MTU: 1400,
		LeaseTime: time.Hour}
}

// namespace makes a network namespace with eth0 in it, and its other end here.
func (l *lab) namespace(name, peer string) {
	l.Helper()
	sh(l, `ip netns add %[1]s; ip link add %[2]s type veth peer name eth0 netns %[1]s; ip link set %[2]s up
ip -n %[1]s link set lo up; ip -n %[1]s link set eth0 up`, name, peer)
	l.Cleanup(func() { sh(l, "ip link del %s; ip netns del %s", peer, name) })
}

// guest makes a guest on the bridge with the MAC address.
func (l *lab) guest(name string, spec plan.ServerSpec, mac string) {
	l.Helper()
	l.namespace(name, name+"-v")
	sh(l, "ip -n %s link set eth0 address %s; ip link set %s master %s", name, mac, name+"-v", spec.Bridge)
}

// dhcp gets an address for the guest with a real client and returns what the client was told.
func (l *lab) dhcp(guest string, options string) map[string]string {
	l.Helper()
	dir := filepath.Dir(l.options.RuntimeDir)
	script := filepath.Join(dir, "udhcpc")
	if err := os.WriteFile(script, []byte(`#!/bin/sh
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip addr flush dev $interface
ip addr add $ip/$mask dev $interface
[ -z "$router" ] || ip route replace default via $router
env >$0.told
`), 0o755); err != nil {
		l.Fatal(err)
	}
	os.Remove(script + ".told")
	sh(l, "ip netns exec %s udhcpc -i eth0 -n -q -f -t 20 -T 1 -O mtu -s %s %s", guest, script, options)
	out, err := os.ReadFile(script + ".told")
	if err != nil {
		l.Fatal(err)
	}
	told := map[string]string{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		told[key] = value
	}
	return told
}

// dig asks from a namespace ("" for here) and returns the status and the answers, sorted by dig.
func (l *lab) dig(namespace, query string) (status, answer string) {
	l.Helper()
	args := append([]string{"+time=1", "+tries=1", "+noall", "+comments", "+answer"}, strings.Fields(query)...)
	cmd := exec.Command("dig", args...)
	if namespace != "" {
		cmd = exec.Command("ip", append([]string{"netns", "exec", namespace, "dig"}, args...)...)
	}
	out, _ := cmd.CombinedOutput() // it fails without an answer
	status = "none"
	for line := range strings.Lines(string(out)) {
		if _, rest, ok := strings.Cut(line, "status: "); ok {
			status, _, _ = strings.Cut(rest, ",")
		} else if f := strings.Fields(line); len(f) >= 5 && f[2] == "IN" {
			answer = strings.TrimSpace(answer + " " + strings.Join(f[4:], " "))
		}
	}
	return status, answer
}

// wantAnswer asks and fails the test when the status or the answer is another.
func (l *lab) wantAnswer(namespace, query, status, answer string) {
	l.Helper()
	if s, a := l.dig(namespace, query); s != status || a != answer {
		l.Errorf("dig %s in %q: %s %q, want %s %q", query, namespace, s, a, status, answer)
	}
}
