package gate

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gangway/service/plan"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestCableIsUnplugged(t *testing.T) {
	if !isolated(t) {
		return
	}
	l := newLab(t)
	l.cable("eth0")
	outer := l.pair("default")
	// What it is for: with our end up, the bridge doesn't notice.
	ip(t, "link", "set", outer, "up")
	l.plug("eth0", false)
	eventually(t, "eth0 without carrier", func() bool { return !l.carrier("eth0") })
	eventually(t, "br0 with the link's carrier", func() bool { return l.carrier("br0") })

	l.apply(l.room(), plan.StartGate{})
	l.await(outer, false)
	var took []time.Duration
	for range 20 {
		l.plug("eth0", true)
		l.await(outer, true)
		began := time.Now()
		l.plug("eth0", false)
		l.await(outer, false)
		took = append(took, time.Since(began).Round(100*time.Microsecond))
	}
	slices.Sort(took)
	if median := took[len(took)/2]; median > time.Second {
		t.Errorf("half of the times it took longer than %s", median)
	}
	t.Log("unplugged, with ip's own time, until br0 has no carrier:", took)
	ip(t, "link", "set", outer, "up") // by somebody else
	l.await(outer, false)
	l.plug("eth0", true)
	l.await(outer, true)
	ip(t, "link", "set", "eth0", "down")
	l.await(outer, false)
	ip(t, "link", "set", "eth0", "up")
	l.await(outer, true)
	ip(t, "link", "set", "eth0", "nomaster")
	l.await(outer, false)
	ip(t, "link", "set", "eth0", "master", "br0")
	l.await(outer, true)
	ip(t, "link", "del", "eth0")
	l.await(outer, false)
}

func TestAnyForeignPortCounts(t *testing.T) {
	if !isolated(t) {
		return
	}
	l := newLab(t)
	l.apply(l.room(), plan.StartGate{})
	l.cable("eth0")
	l.cable("eth1")
	// Other networks' links don't count, be they half made.
	outers := []string{l.pair("default"), l.pair("second")}
	ip(t, "link", "add", "gw6half", "up", "group", strconv.Itoa(plan.GroupPair), "type", "veth", "peer", "name", "gw6other")
	ip(t, "link", "set", "gw6other", "up")
	ip(t, "link", "set", "gw6half", "master", "br0")
	both := func(open bool) {
		t.Helper()
		for _, o := range outers {
			eventually(t, o+" up: "+strconv.FormatBool(open), func() bool { return l.up(o) == open })
		}
	}
	both(true)
	l.plug("eth0", false)
	eventually(t, "eth0 without carrier", func() bool { return !l.carrier("eth0") })
	l.settle()
	both(true)
	l.plug("eth1", false)
	both(false)
	// A user's virtual machine keeps a bridge's carrier, with us or without.
	tap, err := openTap("vnet0")
	must(t, err)
	defer tap.Close()
	ip(t, "link", "set", "vnet0", "up", "master", "br0")
	both(true)
	must(t, tap.Close())
	both(false)
	// What is in another bridge is another's business.
	ip(t, "link", "add", "br1", "up", "type", "bridge")
	ip(t, "link", "set", outers[1], "master", "br1")
	l.plug("eth1", true)
	eventually(t, "the one of br0 is up", func() bool { return l.up(outers[0]) })
	l.settle()
	if l.up(outers[1]) {
		t.Error("open in a bridge without a cable")
	}
	ip(t, "link", "set", outers[1], "up", "nomaster")
	eventually(t, "down without a bridge", func() bool { return !l.up(outers[1]) })
}

// openTap makes a tap as a virtual machine does, which has carrier while it is open.
func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// settle waits until the watchdog has looked at everything that happened so far: it answers to
// what happens to a link of its own.
func (l *lab) settle() {
	l.Helper()
	probe := l.pair("probe")
	ip(l, "link", "set", probe, "nomaster", "up")
	eventually(l, "the watchdog's answer", func() bool { return !l.up(probe) })
	ip(l, "link", "del", probe)
}

func TestOthersLinksAreLeftAlone(t *testing.T) {
	if !isolated(t) {
		return
	}
	l := newLab(t)
	l.apply(l.room(), plan.StartGate{})
	l.cable("eth0")
	outer := l.pair("default")
	inner, _ := plan.PairNames("default")
	ip(t, "link", "add", "gw6u", "type", "veth", "peer", "name", "gw6n") // a name alone is nothing
	ip(t, "link", "set", "gw6u", "master", "br0")
	l.await(outer, true)
	l.settle()
	if l.up("gw6u") {
		t.Error("brought up what isn't ours")
	}
	ip(t, "link", "set", "gw6u", "up")
	l.plug("eth0", false)
	l.await(outer, false)
	l.settle()
	if !l.up("gw6u") || !l.up(inner) || !l.up("eth0") || !l.up("br0") {
		t.Error("took down more than the outer end")
	}
}

func TestFlappingConverges(t *testing.T) {
	if !isolated(t) {
		return
	}
	l := newLab(t)
	l.apply(l.room(), plan.StartGate{})
	l.cable("eth0")
	outers := []string{l.pair("a"), l.pair("b"), l.pair("c")}
	x, err := netlink.LinkByName("eth0x")
	must(t, err)
	for i := range 50 {
		must(t, netlink.LinkSetDown(x))
		if i%2 == 0 {
			must(t, netlink.LinkSetUp(x))
		}
		if i%10 < 8 {
			continue // as fast as we can
		}
		for _, o := range outers {
			l.await(o, i%2 == 0)
		}
	}
}

// A machine so busy that the watchdog isn't told of everything.
func TestLostMessages(t *testing.T) {
	if !isolated(t) {
		return
	}
	l := newLab(t)
	l.apply(l.room(), plan.StartGate{})
	l.cable("eth0")
	outer := l.pair("default")
	l.await(outer, true)
	pid := l.pid()
	must(t, unix.Kill(pid, unix.SIGSTOP))
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	for i := 0; lost(t) == 0; i++ {
		must(t, netlink.LinkSetAlias(lo, strconv.Itoa(i)))
	}
	l.plug("eth0", false)
	must(t, unix.Kill(pid, unix.SIGCONT))
	l.await(outer, false)
	l.plug("eth0", true)
	l.await(outer, true)
	if l.pid() != pid {
		t.Error("another watchdog")
	}
}

// lost reads how many messages those who watch links alone were not given.
func lost(t *testing.T) (n int) {
	t.Helper()
	table, err := os.ReadFile("/proc/self/net/netlink")
	must(t, err)
	for line := range strings.Lines(string(table)) {
		// sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
		if f := strings.Fields(line); len(f) == 10 && f[3] == "00000001" {
			drops, err := strconv.Atoi(f[8])
			must(t, err)
			n += drops
		}
	}
	return n
}

// Many links come and go, which interrupts dumps.
func TestStorm(t *testing.T) {
	if !isolated(t) {
		return
	}
	l := newLab(t)
	l.apply(l.room(), plan.StartGate{})
	l.cable("eth0")
	outer := l.pair("default")
	l.await(outer, true)
	done := make(chan struct{})
	storm := make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				storm <- nil
				return
			default:
			}
			d := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "gwt" + strconv.Itoa(i%64)}}
			if i >= 64 {
				_ = netlink.LinkDel(d)
			}
			if err := netlink.LinkAdd(d); err != nil {
				storm <- err
				return
			}
		}
	}()
	for range 10 {
		l.plug("eth0", false)
		l.await(outer, false)
		l.plug("eth0", true)
		l.await(outer, true)
	}
	close(done)
	must(t, <-storm)
}
