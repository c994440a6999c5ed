package link

import (
	"context"
	"strconv"
	"testing"
	"time"

	"gangway/service/plan"

	"github.com/vishvananda/netlink"
)

func TestPort(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	index := veth(t, "gwtp", "gwtq")
	add := plan.AddPort{Bridge: "gwt0", Interface: "gwtp", Index: index}
	refused(t, k, add, `cannot add port "gwtp" to "gwt0"`, "no such interface")
	apply(t, k, bridgeOp("gwt0"), bridgeOp("gwt1"), plan.SetLinkUp{Name: "gwt0"})
	for range 2 {
		apply(t, k, add, plan.IsolatePort{Interface: "gwtp", On: true})
		have := observe(t, k)
		p, b := findLink(t, have, "gwtp"), findLink(t, have, "gwt0")
		if p.Master != b.Index || !p.Up || !p.Isolated || !b.Carrier {
			t.Errorf("port %+v, bridge %+v", p, b)
		}
		ip(t, "link", "set", "gwtp", "type", "bridge_slave", "hairpin", "on") // the second time, AddPort clears it
		apply(t, k, add)
		hairpin(t, p.Index, false)
		apart := add
		apart.Isolated = true
		apply(t, k, apart)
		if p := findLink(t, observe(t, k), "gwtp"); !p.Isolated {
			t.Errorf("not isolated: %+v", p)
		}
	}
	apply(t, k, plan.IsolatePort{Interface: "gwtp"})
	if p := findLink(t, observe(t, k), "gwtp"); p.Isolated {
		t.Errorf("still isolated: %+v", p)
	}
	other := plan.AddPort{Bridge: "gwt1", Interface: "gwtp", Index: index}
	refused(t, k, other, `cannot add port "gwtp" to "gwt1"`, `a port of "gwt0"`)
	moved := add
	moved.Index++
	refused(t, k, moved, "another interface has the name")
	apply(t, k, plan.RemovePort{Bridge: "gwt1", Interface: "gwtp"}, plan.RemovePort{Bridge: "gwt-absent", Interface: "gwtp"})
	if p := findLink(t, observe(t, k), "gwtp"); p.Master == 0 {
		t.Error("removed from another bridge than asked")
	}
	for range 2 {
		apply(t, k, plan.RemovePort{Bridge: "gwt0", Interface: "gwtp"}, plan.RemovePort{Bridge: "gwt0", Interface: "gwt-absent"})
		if p := findLink(t, observe(t, k), "gwtp"); p.Master != 0 || p.Isolated {
			t.Errorf("still a port: %+v", p)
		}
	}
	if p := findLink(t, observe(t, k), "gwtp"); !p.Up {
		t.Error("brought down without being asked")
	}
	apply(t, k, add, plan.RemovePort{Bridge: "gwt0", Interface: "gwtp", Down: true})
	if p := findLink(t, observe(t, k), "gwtp"); p.Master != 0 || p.Up {
		t.Errorf("not left down: %+v", p)
	}
	refused(t, k, plan.IsolatePort{Interface: "gwtp", On: true}, "not a port")
	refused(t, k, plan.SetLinkUp{Name: "gwt-absent"}, `cannot bring up "gwt-absent"`)
}

func hairpin(t *testing.T, index int, want bool) {
	t.Helper()
	l, err := netlink.LinkByIndex(index)
	must(t, err)
	info, err := netlink.LinkGetProtinfo(l)
	must(t, err)
	if info.Hairpin != want {
		t.Errorf("hairpin is %v", info.Hairpin)
	}
}

// The other ends lie in a guest's namespace, one of them with the same index as the port: for
// such a pair the kernel doesn't hurry to announce the carrier (linkwatch_urgent_event).
func TestBounceIsSeen(t *testing.T) {
	if !isolated(t) {
		return
	}
	guest := newGuest(t)
	k := newKernel(t)
	apply(t, k, bridgeOp("gwt0"), plan.SetLinkUp{Name: "gwt0"})
	var bounces []plan.Op
	for i, name := range []string{"gwta", "gwtb", "gwtc"} {
		ip(t, "link", "add", name, "index", strconv.Itoa(500+i), "type", "veth",
			"peer", "name", name, "index", strconv.Itoa(500+5*i), "netns", strconv.Itoa(guest.pid))
		guest.up(t, name)
		apply(t, k, plan.AddPort{Bridge: "gwt0", Interface: name, Index: 500 + i})
		guest.await(t, name, true)
		bounces = append(bounces, plan.BouncePort{Interface: name})
	}
	losses := guest.watch(t)
	began := time.Now()
	apply(t, k, append(bounces, plan.BouncePort{Interface: "gwt-absent"})...)
	if took := time.Since(began); took < BounceTime || took > 10*BounceTime {
		t.Errorf("bouncing took %s", took)
	}
	for _, name := range []string{"gwta", "gwtb", "gwtc"} {
		eventually(t, name+"'s other end sees its carrier go", func() bool { return losses(name) == 1 })
		guest.await(t, name, true)
		if l, _ := observeLink(t, k, name); !l.Up || !l.Carrier {
			t.Errorf("after the bounce: %+v", l)
		}
	}
}

func TestBounceEndsWithContext(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	index := veth(t, "gwtp", "gwtq")
	apply(t, k, bridgeOp("gwt0"), plan.AddPort{Bridge: "gwt0", Interface: "gwtp", Index: index})
	down := bounce{}
	c, err := k.connect()
	must(t, err)
	must(t, c.beginBounce(plan.BouncePort{Interface: "gwtp"}, 0, &down))
	if l, _ := observeLink(t, k, "gwtp"); l.Up {
		t.Error("not down")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	k.endBounce(ctx, down, make([]plan.Outcome, 1))
	if l, _ := observeLink(t, k, "gwtp"); !l.Up {
		t.Error("left down")
	}
}

// The program behind a tap doesn't notice: it isn't worth losing frames.
func TestTapsAreNotBounced(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	ip(t, "tuntap", "add", "gwtt", "mode", "tap")
	l, _ := observeLink(t, k, "gwtt")
	apply(t, k, bridgeOp("gwt0"), plan.AddPort{Bridge: "gwt0", Interface: "gwtt", Index: l.Index})
	var p pokes
	startWatch(t, k, watchBuffer, p.poke)
	eventually(t, "the first poke", func() bool { return p.count("watching") == 1 })
	apply(t, k, plan.BouncePort{Interface: "gwtt"})
	settled(t, &p)
	if l, _ := observeLink(t, k, "gwtt"); !l.Up || p.count("link") != 0 {
		t.Errorf("after the bounce: %+v, pokes %s", l, p.all())
	}
}
