package uplink

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"gangway/service/vnet"
)

// insideVariable tells the test program that it runs in namespaces of its own.
const insideVariable = "GANGWAY_UPLINK_TEST_INSIDE"

// TestMain runs the program again in network, mount and process namespaces of its own: whatever
// happens to it, the kernel takes everything away with its first process.
func TestMain(m *testing.M) {
	if os.Getenv(sharerVariable) != "" {
		os.Exit(beSharer())
	}
	if os.Getenv(insideVariable) != "" {
		if err := isolate(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	if os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	runtime.LockOSThread() // Pdeathsig is sent when the thread ends
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  unix.SIGKILL,
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(max(exit.ExitCode(), 1))
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// isolate makes what programs look for by a path this process's own: its processes, its namespaces'
// names, and the labs that other tests of this machine may be running.
func isolate() error {
	labs := "/tmp/gangway-lab"
	if err := os.MkdirAll(labs, 0o755); err != nil {
		return err
	}
	for _, m := range []struct {
		target, kind string
		flags        uintptr
	}{
		{"/", "", unix.MS_REC | unix.MS_PRIVATE},
		{"/proc", "proc", 0},
		{"/sys", "sysfs", unix.MS_RDONLY}, // or NetworkManager waits for udev
		{"/run", "tmpfs", 0},
		{"/dev/shm", "tmpfs", 0},
		{labs, "tmpfs", 0},
	} {
		if err := unix.Mount(m.kind, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("cannot mount %q: %w", m.target, err)
		}
	}
	return os.Chmod(labs, 0o755)
}

// laptop is this process's network namespace with a real bus and NetworkManager, and two
// access networks, a and b, with real DHCP.
type laptop struct {
	owner testing.TB // whose end ends everything
	tb    testing.TB // who fails now, the owner or a subtest
	dir   string
	nm    *exec.Cmd
}

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><deny own="*"/><deny send_type="method_call"/>
<allow send_type="signal"/><allow send_requested_reply="true" send_type="method_return"/>
<allow send_requested_reply="true" send_type="error"/><allow receive_type="method_call"/>
<allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/>
<allow send_destination="org.freedesktop.DBus"/></policy>
<includedir>/usr/share/dbus-1/system.d</includedir></busconfig>`

const nmConfig = `[main]
plugins=keyfile
dns=none
rc-manager=unmanaged
auth-polkit=false
dhcp=internal
no-auto-default=*
[device-uplinks]
match-device=interface-name:eth0;interface-name:wlan0
managed=1
`

const nmProfiles = `
=== eth0
[connection]
id=Office
uuid=11111111-1111-4111-8111-111111111111
type=ethernet
interface-name=eth0
[ipv4]
method=auto
route-metric=100
route1=10.99.0.0/16,10.7.1.1
[ipv6]
method=disabled
=== wlan0
[connection]
id=Home
uuid=22222222-2222-4222-8222-222222222222
type=ethernet
interface-name=wlan0
metered=1
[ipv4]
method=auto
route-metric=600
[ipv6]
method=disabled
=== inactive
[connection]
id=Workshop
uuid=33333333-3333-4333-8333-333333333333
type=ethernet
autoconnect=false
interface-name=eth7
[ipv4]
method=manual
address1=10.55.1.2/24,10.55.1.1
dns=10.56.0.53
route1=10.57.0.0/16,10.55.1.1
=== tunnel
[connection]
id=Company
uuid=44444444-4444-4444-8444-444444444444
type=tun
autoconnect=false
interface-name=tun1
[tun]
mode=1
[ipv4]
method=manual
address1=10.8.1.2/24,10.8.1.1
route-metric=50
dns=10.8.1.53
dns-search=~company.example
[ipv6]
method=disabled
`

// newLaptop sets everything up; it ends with the test. NetworkManager isn't started yet.
func newLaptop(tb testing.TB) *laptop {
	tb.Helper()
	if os.Getenv(insideVariable) == "" {
		tb.Fatal("needs root, for namespaces of its own")
	}
	l := &laptop{owner: tb, tb: tb, dir: tb.TempDir()}
	mount := func(source, target, kind string, flags uintptr) {
		if err := unix.Mount(source, target, kind, flags, ""); err != nil {
			tb.Fatalf("cannot mount %q: %v", target, err)
		}
	}
	private := []string{"/run", "/var/lib/NetworkManager", "/etc/NetworkManager"}
	for _, dir := range private {
		mount("tmpfs", dir, "tmpfs", 0)
	}
	tb.Cleanup(func() { // for the next one of this process
		links, _ := netlink.LinkList()
		for _, link := range links {
			if link.Attrs().Name != "lo" {
				netlink.LinkDel(link) // a veth's peer may have taken it along
			}
		}
		for _, dir := range private {
			unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	l.write("/etc/NetworkManager/NetworkManager.conf", nmConfig)
	for _, text := range strings.Split(nmProfiles, "\n=== ")[1:] {
		name, body, _ := strings.Cut(text, "\n")
		l.write("/etc/NetworkManager/system-connections/"+name+".nmconnection", body)
	}
	l.run("ip link set lo up")
	for i, name := range []string{"eth0", "wlan0"} {
		site := string(rune('a' + i))
		l.run("ip netns add " + site)
		l.run(fmt.Sprintf("ip link add %s type veth peer name lan netns %s", name, site))
		l.run(fmt.Sprintf("ip -n %s addr add 10.7.%d.1/24 dev lan", site, i+1))
		l.run(fmt.Sprintf("ip -n %s link set lan up", site))
		l.start(fmt.Sprintf("ip netns exec %s dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --no-ping "+
			"--interface=lan --dhcp-authoritative --dhcp-range=10.7.%d.100,10.7.%d.200,1h --domain=%s.example "+
			"--dhcp-option=option:dns-server,10.7.%d.53 --dhcp-leasefile=/run/leases-%s --pid-file=",
			site, i+1, i+1, site, i+1, site))
	}
	l.write("/run/bus.conf", fmt.Sprintf(busConfig, "/run/bus"))
	l.start("dbus-daemon --nofork --config-file=/run/bus.conf")
	os.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/run/bus")
	l.until("the bus is there", func() bool { _, err := os.Stat("/run/bus"); return err == nil })
	return l
}

func (l *laptop) write(path, text string) {
	l.tb.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		l.tb.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		l.tb.Fatal(err)
	}
}

func (l *laptop) run(command string) string {
	l.tb.Helper()
	return l.runWords(strings.Fields(command)...)
}

func (l *laptop) runWords(words ...string) string {
	l.tb.Helper()
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		l.tb.Fatalf("%q: %v: %s", words, err, out)
	}
	return string(out)
}

// start starts a program that is ended with the test, and whose output a failure shows.
func (l *laptop) start(command string) *exec.Cmd {
	l.tb.Helper()
	words := strings.Fields(command)
	out, err := os.Create(filepath.Join(l.dir, fmt.Sprintf("%d.log", time.Now().UnixNano())))
	if err != nil {
		l.tb.Fatal(err)
	}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		l.tb.Fatal(err)
	}
	l.owner.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		out.Close()
		if text, _ := os.ReadFile(out.Name()); l.owner.Failed() {
			l.owner.Logf("%s:\n%s", command, text)
		}
	})
	return cmd
}

func (l *laptop) startNM() {
	l.tb.Helper()
	l.nm = l.start("NetworkManager --no-daemon --log-level=INFO")
}

func (l *laptop) stopNM() {
	l.tb.Helper()
	if err := l.nm.Process.Signal(unix.SIGTERM); err != nil {
		l.tb.Fatal(err)
	}
	l.nm.Wait()
}

// connect returns a new connection to the bus that is closed with the test.
func (l *laptop) connect() *godbus.Conn {
	l.tb.Helper()
	bus, err := godbus.ConnectSystemBus(godbus.WithSignalHandler(godbus.NewSequentialSignalHandler()))
	if err != nil {
		l.tb.Fatal(err)
	}
	l.tb.Cleanup(func() { bus.Close() })
	return bus
}

// until waits for the condition, half a minute at most.
func (l *laptop) until(what string, cond func() bool) {
	l.tb.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			l.tb.Fatalf("waited in vain until %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// read dumps the kernel and reads.
func (l *laptop) read(r *Reader) vnet.Uplinks {
	l.tb.Helper()
	u, err := r.Read(context.Background(), l.dump())
	if err != nil {
		l.tb.Fatal(err)
	}
	return u
}

// readUntil reads until the reading is as wanted, and returns it.
func (l *laptop) readUntil(r *Reader, what string, cond func(*vnet.Uplinks) bool) vnet.Uplinks {
	l.tb.Helper()
	var u vnet.Uplinks
	defer func() {
		if l.tb.Failed() {
			l.tb.Logf("last reading: %+v", u)
		}
	}()
	l.until(what, func() bool { u = l.read(r); return cond(&u) })
	return u
}

// dump is the dump that a pass would get, as far as this package looks at it.
func (l *laptop) dump() *vnet.Kernel {
	l.tb.Helper()
	check := func(err error) {
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			l.tb.Fatal(err)
		}
	}
	var k vnet.Kernel
	links, err := netlink.LinkList()
	check(err)
	for _, link := range links {
		a := link.Attrs()
		kind := link.Type()
		if kind == "device" || kind == "tuntap" {
			kind = map[string]string{"device": "", "tuntap": "tun"}[kind]
		}
		k.Links = append(k.Links, vnet.Link{
			Index: a.Index, Name: a.Name, Kind: kind, Type: map[bool]uint16{true: 1, false: 65534}[len(a.HardwareAddr) == 6],
			MTU: a.MTU, Up: a.RawFlags&unix.IFF_UP != 0, Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0,
			Master: a.MasterIndex, Alias: a.Alias, Group: a.Group, Loopback: a.RawFlags&unix.IFF_LOOPBACK != 0,
		})
	}
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	check(err)
	for _, a := range addresses {
		ip, _ := netip.AddrFromSlice(a.IP)
		bits, _ := a.Mask.Size()
		k.Addresses = append(k.Addresses, vnet.Address{
			Link: a.LinkIndex, Prefix: netip.PrefixFrom(ip.Unmap(), bits), Scope: uint8(a.Scope),
			Tentative: a.Flags&unix.IFA_F_TENTATIVE != 0,
		})
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, netlink.RT_FILTER_TABLE)
	check(err)
	for _, r := range routes {
		dst := everything
		if r.Dst != nil {
			ip, _ := netip.AddrFromSlice(r.Dst.IP)
			bits, _ := r.Dst.Mask.Size()
			dst = netip.PrefixFrom(ip.Unmap(), bits)
		}
		gateway, _ := netip.AddrFromSlice(r.Gw)
		k.Routes = append(k.Routes, vnet.Route{
			Table: uint32(r.Table), Dst: dst, Gateway: gateway.Unmap(), Link: r.LinkIndex,
			Metric: uint32(r.Priority), Protocol: uint8(r.Protocol), Type: uint8(r.Type),
		})
	}
	rules, err := netlink.RuleList(netlink.FAMILY_V4)
	check(err)
	for _, r := range rules {
		k.Rules = append(k.Rules, vnet.Rule{
			Priority: r.Priority, IIF: r.IifName, Table: uint32(r.Table), Protocol: r.Protocol,
			SuppressPrefixLength: r.SuppressPrefixlen, Foreign: r.Invert || r.Mark != 0,
		})
	}
	return &k
}
