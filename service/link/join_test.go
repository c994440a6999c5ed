package link

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"gangway/service/plan"
	"gangway/service/vnet"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestJoinAndLeave(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	op := pairOp("x")
	for _, name := range []string{"gwtu", "gwtv"} {
		ip(t, "link", "add", name, "up", "type", "bridge")
	}
	apply(t, k, bridgeOp("gwt0"), op)
	want := func(name, master string, up, isolated bool) {
		t.Helper()
		have := observe(t, k)
		l := findLink(t, have, name)
		index := 0
		if master != "" {
			index = findLink(t, have, master).Index
		}
		if l.Master != index || l.Up != up || l.Isolated != isolated {
			t.Errorf("want %s in %q (%d), up %v, isolated %v: %+v", name, master, index, up, isolated, l)
		}
	}
	for range 2 {
		apply(t, k, plan.JoinBridge{Link: op.Inner, Bridge: "gwt0"}, plan.JoinBridge{Link: op.Outer, Bridge: "gwtu", Isolated: true})
		want(op.Inner, "gwt0", false, false)
		want(op.Outer, "gwtu", false, true)
	}
	apply(t, k, plan.SetLinkUp{Name: op.Inner}, plan.SetLinkUp{Name: op.Outer})
	for _, bridge := range []string{"gwtv", "gwtv", "gwtu"} {
		apply(t, k, plan.JoinBridge{Link: op.Outer, Bridge: bridge, Isolated: true})
		want(op.Inner, "gwt0", true, false)
		want(op.Outer, bridge, true, true)
	}
	for _, on := range []bool{false, false, true} {
		apply(t, k, plan.JoinBridge{Link: op.Outer, Bridge: "gwtu", Isolated: on})
		want(op.Outer, "gwtu", true, on)
	}
	apply(t, k, plan.JoinBridge{Link: op.Outer, Bridge: "gwtv"})
	want(op.Outer, "gwtv", true, false)
	for range 2 {
		apply(t, k, plan.SetLinkDown{Name: op.Inner}, plan.LeaveBridge{Link: op.Outer}, plan.SetLinkDown{Name: "gwt0"})
		want(op.Inner, "gwt0", false, false)
		want(op.Outer, "", false, false)
	}
	for _, o := range []plan.Op{plan.LeaveBridge{Link: "gwt-absent"}, plan.SetLinkDown{Name: "gwt-absent"},
		plan.DeletePair{Inner: "gwt-absent", Alias: op.InnerAlias}, plan.FlushPort{Link: "gwt-absent"}, plan.FlushPort{Link: op.Outer}} {
		apply(t, k, o)
	}
	refused(t, k, plan.JoinBridge{Link: "gwt-absent", Bridge: "gwtu"}, `cannot join "gwt-absent" to "gwtu"`, "no such interface")
	refused(t, k, plan.JoinBridge{Link: op.Outer, Bridge: "gwt-absent"}, `"gwt-absent"`, "no such interface")
	refused(t, k, plan.JoinBridge{Link: op.Outer, Bridge: op.Inner}, `"gw6xn" is not a bridge but a veth`)
}

func TestOthersLinksAreNotTouched(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	ip(t, "link", "add", "gwtu", "up", "type", "bridge")
	veth(t, "gw6p", "gwtq") // a name like ours
	ip(t, "link", "set", "gw6p", "up", "master", "gwtu")
	before := observe(t, k).Links
	for _, op := range []plan.Op{plan.JoinBridge{Link: "gw6p", Bridge: "gwtu", Isolated: true}, plan.LeaveBridge{Link: "gw6p"},
		plan.SetLinkDown{Name: "gw6p"}, plan.FlushPort{Link: "gw6p"}, plan.DeletePair{Inner: "gw6p", Alias: "gangway6:p"}} {
		refused(t, k, op, `"gw6p"`)
	}
	refused(t, k, plan.SetLinkDown{Name: "gwtu"}, `"gwtu"`, "not ours but a bridge")
	if d := cmp.Diff(before, observe(t, k).Links, cmpopts.IgnoreFields(vnet.Link{}, "RxBytes", "TxBytes", "Carrier")); d != "" {
		t.Errorf("foreign links changed (-want +got):\n%s", d)
	}
}

// A bridge takes its MAC address and MTU from its ports unless somebody chose them.
func TestJoiningChangesNothingOfTheBridge(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	op := pairOp("x")
	port := func(name, mac, bridge, mtu string) {
		veth(t, name, name+"q")
		ip(t, "link", "set", name, "address", mac, "mtu", mtu, "up", "master", bridge)
	}
	for _, name := range []string{"gwtu", "gwtv", "gwtw"} {
		ip(t, "link", "add", name, "up", "type", "bridge")
	}
	port("gwta", "70:00:00:00:00:01", "gwtu", "1500")
	port("gwtb", "fc:00:00:00:00:01", "gwtu", "1500")
	port("gwtc", "fc:00:00:00:00:02", "gwtv", "9000") // jumbo frames, and a MAC address that is high
	port("gwtd", "70:00:00:00:00:03", "gwtw", "1280")
	settled := func() (all []vnet.Link) {
		for _, l := range observe(t, k).Links {
			if !strings.HasPrefix(l.Name, plan.PairPrefix) {
				l.Carrier = true // its announcement may be late
				all = append(all, l)
			}
		}
		return all
	}
	before := settled()
	passing := watchMTU(t, "gwtu", "gwtv", "gwtw")
	same := func(when string) {
		t.Helper()
		if d := cmp.Diff(before, settled(), cmpopts.IgnoreFields(vnet.Link{}, "RxBytes", "TxBytes")); d != "" {
			t.Errorf("%s, others changed (-want +got):\n%s", when, d)
		}
	}
	bridgeMTU := func(name string) int { return findLink(t, observe(t, k), name).MTU }
	if bridgeMTU("gwtv") != 9000 || bridgeMTU("gwtw") != 1280 {
		t.Fatalf("bridges don't follow their ports: %d, %d", bridgeMTU("gwtv"), bridgeMTU("gwtw"))
	}
	apply(t, k, op, plan.SetLinkUp{Name: op.Inner}, plan.SetLinkUp{Name: op.Outer})
	for _, name := range []string{"gwtu", "gwtv", "gwtw", "gwtv", "gwtu"} {
		apply(t, k, plan.JoinBridge{Link: op.Outer, Bridge: name, Isolated: true})
		same("joined to " + name)
		if l := findLink(t, observe(t, k), op.Outer); l.MTU != bridgeMTU(name) || !l.Up {
			t.Errorf("joined to %s: %+v", name, l)
		}
	}
	apply(t, k, plan.LeaveBridge{Link: op.Outer})
	same("left")
	apply(t, k, plan.JoinBridge{Link: op.Outer, Bridge: "gwtv", Isolated: true}, deletePairOp(op))
	same("deleted")
	ip(t, "link", "set", "gwtw", "mtu", "1279") // the last that is to be heard
	eventually(t, "word of the last change", func() bool { return slices.Contains(passing(), "gwtw 1279") })
	if d := cmp.Diff([]string{"gwtu 1500", "gwtv 9000", "gwtw 1279", "gwtw 1280"}, passing()); d != "" {
		t.Errorf("MTUs in between (-want +got):\n%s", d)
	}
}

// watchMTU returns, sorted, all that the links' MTUs were from now on.
func watchMTU(t *testing.T, names ...string) func() []string {
	t.Helper()
	updates, done := make(chan netlink.LinkUpdate, 1000), make(chan struct{})
	must(t, netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{ListExisting: true}))
	t.Cleanup(func() { close(done) })
	var seen []string
	return func() []string {
		for {
			select {
			case u := <-updates:
				text := u.Attrs().Name + " " + strconv.Itoa(u.Attrs().MTU)
				if slices.Contains(names, u.Attrs().Name) && !slices.Contains(seen, text) {
					seen = append(seen, text)
				}
			default:
				slices.Sort(seen)
				return seen
			}
		}
	}
}

// Another network's link to the same uplink is isolated, and floods: nothing of it may come out at
// ours, also while ours is moved to and fro, up and brought up by the gate all the time.
func TestNoFramePassesBeforeIsolation(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	op := pairOp("x")
	for _, name := range []string{"gwtu", "gwtv"} {
		ip(t, "link", "add", name, "up", "type", "bridge", "mcast_snooping", "0")
	}
	apply(t, k, bridgeOp("gwt0"), plan.SetLinkUp{Name: "gwt0"}, op, plan.JoinBridge{Link: op.Inner, Bridge: "gwt0"}, plan.SetLinkUp{Name: op.Inner},
		plan.JoinBridge{Link: op.Outer, Bridge: "gwtv", Isolated: true}, plan.SetLinkUp{Name: op.Outer})
	veth(t, "gwtp", "gwtq")
	ip(t, "link", "set", "gwtp", "up", "master", "gwtu")
	ip(t, "link", "set", "gwtp", "type", "bridge_slave", "isolated", "on")
	strange := capture(t, op.Inner)

	done := make(chan struct{})
	var busy sync.WaitGroup
	defer func() { close(done); busy.Wait() }()
	q, err := netlink.LinkByName("gwtq")
	must(t, err)
	outer, err := netlink.LinkByName(op.Outer)
	must(t, err)
	for range 2 {
		busy.Go(func() { flood(q.Attrs().Index, done) })
	}
	busy.Go(func() {
		for open(done) {
			_ = netlink.LinkSetUp(outer)
		}
	})
	for range 150 {
		apply(t, k, plan.JoinBridge{Link: op.Outer, Bridge: "gwtu", Isolated: true}, plan.JoinBridge{Link: op.Outer, Bridge: "gwtv", Isolated: true})
	}
	if n := strange(); n != 0 {
		t.Errorf("%d frames of another network", n)
	}
	// So that the test would have seen them:
	apply(t, k, plan.JoinBridge{Link: op.Outer, Bridge: "gwtu"})
	eventually(t, "frames when it is not isolated", func() bool { return strange() > 0 })
}

func open(done chan struct{}) bool {
	select {
	case <-done:
		return false
	default:
		return true
	}
}

const strangeType = 0x88b5 // IEEE 802's for experiments

// flood broadcasts from the interface.
func flood(index int, done chan struct{}) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	frame := append(net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 9, strangeType >> 8, strangeType & 0xff}, make([]byte, 46)...)
	for open(done) {
		_ = unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: index})
	}
}

// capture counts the strange frames that come in by the interface.
func capture(t *testing.T, name string) func() int {
	t.Helper()
	const protocol = unix.ETH_P_ALL << 8 // one type alone would be told behind the bridge, which takes all
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	l, err := netlink.LinkByName(name)
	must(t, err)
	must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index, Protocol: protocol}))
	n, buf := 0, make([]byte, 2048)
	return func() int {
		for {
			size, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return n
			}
			if size >= 14 && buf[12] == strangeType>>8 && buf[13] == strangeType&0xff {
				n++
			}
		}
	}
}

func TestFlushPort(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	op := pairOp("x")
	index := veth(t, "gwtp", "gwtq")
	apply(t, k, bridgeOp("gwt0"), plan.SetLinkUp{Name: "gwt0"}, plan.AddPort{Bridge: "gwt0", Interface: "gwtp", Index: index}, op,
		plan.JoinBridge{Link: op.Inner, Bridge: "gwt0"}, plan.SetLinkUp{Name: op.Inner}, plan.SetLinkUp{Name: op.Outer})
	have := observe(t, k)
	bridge, inner := findLink(t, have, "gwt0").Index, findLink(t, have, op.Inner).Index
	learned := func(port int) bool {
		macs, err := k.LearnedMACs(t.Context(), bridge)
		must(t, err)
		return macs[port] != ""
	}
	for _, name := range []string{op.Outer, "gwtq"} {
		eventually(t, "both are learned", func() bool { sendFrames(t, name, 2); return learned(index) || name != "gwtq" && learned(inner) })
	}
	for range 2 {
		apply(t, k, plan.FlushPort{Link: op.Inner})
		if learned(inner) || !learned(index) {
			t.Errorf("flushed the inner end's: inner %v, other %v", learned(inner), learned(index))
		}
	}
	apply(t, k, plan.FlushPort{Link: "gwtp"})
	if learned(index) {
		t.Error("a port of a bridge of ours is not flushed")
	}
}

func TestWatchSeesPairs(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	op := pairOp("x")
	ip(t, "link", "add", "gwtu", "up", "type", "bridge")
	var p pokes
	startWatch(t, k, watchBuffer, p.poke)
	eventually(t, "the first poke", func() bool { return p.count("watching") == 1 })
	for i, do := range []func(){
		func() { apply(t, k, op) },
		func() { ip(t, "link", "set", op.Outer, "master", "gwtu") },
		func() { bridgeTool(t, "link", "set", "dev", op.Outer, "isolated", "on") },
		func() { ip(t, "link", "set", op.Outer, "up") },
		// While it is down, the kernel doesn't announce what is changed this way (netdev_state_change).
		func() { ip(t, "link", "set", op.Outer, "type", "bridge_slave", "isolated", "off") },
		func() { ip(t, "link", "set", op.Outer, "nomaster") },
		func() { ip(t, "link", "set", op.Inner, "up") },
		func() { ip(t, "link", "set", op.Outer, "alias", "") },
		func() { ip(t, "link", "set", op.Inner, "group", strconv.Itoa(1)) },
		func() { ip(t, "link", "del", op.Inner) },
	} {
		settled(t, &p)
		before := p.count("link")
		do()
		eventually(t, "a poke for change "+strconv.Itoa(i), func() bool { return p.count("link") > before })
	}
}
