package ndp

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// The tests run real routers (radvd, dnsmasq) and real guests, the kernel in namespaces. TestMain runs the test
// binary again as the first process of a process, network and mount namespace of its own, with its
// own /run: whatever a test leaves, and however it ends, all of it goes with that process.
const labVariable = "GANGWAY_NDP_LAB"

func TestMain(m *testing.M) {
	if os.Getenv(labVariable) == "" {
		os.Exit(runInLab())
	}
	if err := prepareLab(); err != nil {
		fmt.Fprintln(os.Stderr, "cannot prepare the lab:", err)
		os.Exit(1)
	}
	// They wait more than they work.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
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
		fmt.Fprintln(os.Stderr, "the tests of ndp need root, iproute2, radvd and dnsmasq:", err)
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
	return syscall.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
}

// lab is a network with a bridge, an IPv6-only link that is nowhere yet, and a room.
type lab struct {
	*testing.T
	id                           string
	network, bridge, inner, dir  string
	outer                        string
	room                         *Room
	options                      Options
	uplinks                      []vnet.Uplink
	pokes                        atomic.Int64
	mu                           sync.Mutex
	namespaces, guests, captures int
}

var labs atomic.Int64

// newLab makes the network and, unless options say otherwise, a room. Tests may run side by side.
func newLab(t *testing.T, edit ...func(*Options)) *lab {
	t.Helper()
	id := fmt.Sprint(labs.Add(1))
	dir, err := os.MkdirTemp("/run", "lab-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	l := &lab{T: t, id: id, network: "net" + id, bridge: "b" + id, inner: "n" + id, outer: "o" + id, dir: dir,
		options: Options{StateDir: filepath.Join(dir, "state"), Log: slog.New(slog.NewTextHandler(t.Output(), nil))}}
	for _, e := range edit {
		e(&l.options)
	}
	sh(l, `ip link add %[1]s type bridge mcast_snooping 0 forward_delay 0; ip link set %[1]s alias %[5]s%[4]s
ip link add %[2]s type veth peer name %[3]s; ip link set %[2]s alias %[6]s%[4]s; ip link set %[3]s alias %[7]s%[4]s
for i in %[1]s %[2]s %[3]s; do echo 1 >/proc/sys/net/ipv6/conf/$i/disable_ipv6; done
ip link set %[2]s master %[1]s up; ip link set %[1]s up`,
		l.bridge, l.inner, l.outer, l.network, plan.AliasPrefix, plan.InnerAliasPrefix, plan.OuterAliasPrefix)
	l.Cleanup(func() { sh(l, "ip link del %s; ip link del %s", l.bridge, l.inner) })
	l.room = l.newRoom()
	return l
}

func (l *lab) newRoom() *Room {
	l.Helper()
	r, err := New(l.options)
	must(l, err)
	l.Cleanup(r.Close)
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { _ = r.Watch(ctx, func(string) { l.pokes.Add(1) }) })
	l.Cleanup(func() { cancel(); group.Wait() })
	eventually(l, "a watcher", func() bool {
		r.watching.Lock()
		defer r.watching.Unlock()
		return len(r.watchers) > 0
	})
	return r
}

// observe shows the room the kernel as it is.
func (l *lab) observe() vnet.NDP {
	l.Helper()
	k := dump(l)
	have, err := l.room.Observe(l.Context(), &k, l.uplinks)
	must(l, err)
	return have
}

// dump reads what the room is told of the kernel.
func dump(t testing.TB) vnet.Kernel {
	t.Helper()
	var k vnet.Kernel
	var links []netlink.Link
	var addresses []netlink.Addr
	eventually(t, "a dump that isn't interrupted", func() bool {
		var err, err2 error
		links, err = netlink.LinkList()
		addresses, err2 = netlink.AddrList(nil, netlink.FAMILY_V6)
		return err == nil && err2 == nil
	})
	for _, each := range links {
		a := each.Attrs()
		kind := uint16(ethernetType)
		if a.EncapType != "ether" {
			kind = 772
		}
		k.Links = append(k.Links, vnet.Link{Index: a.Index, Name: a.Name, Kind: each.Type(), Type: kind, MAC: a.HardwareAddr.String(),
			MTU: a.MTU, Up: a.RawFlags&unix.IFF_UP != 0, Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0,
			Master: a.MasterIndex, Alias: a.Alias, Group: a.Group})
	}
	for _, a := range addresses {
		p, _ := netip.AddrFromSlice(a.IP)
		bits, _ := a.Mask.Size()
		k.Addresses = append(k.Addresses, vnet.Address{Link: a.LinkIndex, Prefix: netip.PrefixFrom(p, bits), Tentative: a.Flags&unix.IFA_F_TENTATIVE != 0})
	}
	return k
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

// uplink makes a bridge that is an uplink, of a host that doesn't ask for routers itself; the room listens
// to it from the next observe on.
func (l *lab) uplink(suffix string) string {
	l.Helper()
	name := "u" + l.id + suffix
	sh(l, "ip link add %[1]s type bridge mcast_snooping 0 forward_delay 0; echo 0 >/proc/sys/net/ipv6/conf/%[1]s/accept_ra; ip link set %[1]s up", name)
	l.Cleanup(func() { sh(l, "ip link del %s", name) })
	l.uplinks = append(l.uplinks, vnet.Uplink{Interface: name, Kind: vnet.BridgeKind})
	return name
}

// namespace makes a network namespace with eth0 in it, which is a port of the bridge, and returns the name of
// the namespace and of the port.
func (l *lab) namespace(bridge, mac string) (ns, port string) {
	l.Helper()
	l.namespaces++
	ns = fmt.Sprintf("ns%s-%d", l.id, l.namespaces)
	port = fmt.Sprintf("p%s-%d", l.id, l.namespaces)
	sh(l, `ip netns add %[1]s; ip link add %[2]s type veth peer name eth0 address %[3]s netns %[1]s
echo 1 >/proc/sys/net/ipv6/conf/%[2]s/disable_ipv6; ip link set %[2]s master %[4]s up; ip -n %[1]s link set lo up`, ns, port, mac, bridge)
	l.Cleanup(func() { sh(l, "ip link del %s; ip netns del %s", port, ns) })
	return ns, port
}

// routerOf makes a namespace for a router with the link-local address on the uplink.
func (l *lab) routerOf(uplink, address, mac string) (ns string) {
	l.Helper()
	ns, port := l.namespace(uplink, mac)
	sh(l, `ip netns exec %[1]s sh -ec 'echo 1 >/proc/sys/net/ipv6/conf/all/forwarding; echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad'
ip -n %[1]s link set eth0 addrgenmode none up; ip -n %[1]s addr add %[2]s/64 dev eth0 nodad`, ns, address)
	eventually(l, "the link of "+ns, func() bool {
		return strings.Contains(sh(l, "bridge link show dev %s", port), "state forwarding") &&
			strings.Contains(sh(l, "ip -n %s link show eth0", ns), "state UP")
	})
	return ns
}

// radvd runs the router with the options of its interface; the function gives it others.
func (l *lab) radvd(ns, options string) (change func(options string), stop func()) {
	l.Helper()
	file := filepath.Join(l.dir, ns+".conf")
	write := func(options string) {
		must(l, os.WriteFile(file, fmt.Appendf(nil, "interface eth0 { AdvSendAdvert on; %s; };\n", options), 0o644))
	}
	write(options)
	stop, pid := l.start(ns, "radvd", "-n", "-C", file, "-p", filepath.Join(l.dir, ns+".pid"), "-m", "stderr", "-u", "root")
	return func(options string) {
		write(options)
		must(l, syscall.Kill(pid, syscall.SIGHUP))
	}, stop
}

// start runs a daemon in the namespace until the end of the test, or until it is stopped.
func (l *lab) start(ns string, args ...string) (stop func(), pid int) {
	l.Helper()
	cmd := exec.Command("ip", append([]string{"netns", "exec", ns}, args...)...)
	log, err := os.Create(filepath.Join(l.dir, ns+".log"))
	must(l, err)
	cmd.Stdout, cmd.Stderr = log, log
	must(l, cmd.Start())
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		log.Close()
	})
	l.Cleanup(func() {
		stop()
		if l.Failed() {
			said, _ := os.ReadFile(log.Name())
			l.Logf("%v said:\n%s", args, said)
		}
	})
	return stop, cmd.Process.Pid
}

// guest makes a guest on the network: a kernel with address configuration by RFC 4862.
func (l *lab) guest(mac string) (ns, port string) {
	l.Helper()
	ns, port = l.namespace(l.bridge, mac)
	sh(l, "ip -n %s link set eth0 up", ns)
	return ns, port
}

// attach puts the outer end into the uplink's bridge, detach takes it out.
func (l *lab) attach(uplink string) {
	l.Helper()
	sh(l, "ip link set %s master %s up", l.outer, uplink)
}

func (l *lab) detach() {
	l.Helper()
	sh(l, "ip link set %[1]s down nomaster", l.outer)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
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
	for deadline := time.Now().Add(30 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
