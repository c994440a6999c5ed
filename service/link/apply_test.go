package link

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"gangway/service/plan"
	"gangway/service/vnet"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func sysctl(t *testing.T, key string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/" + key)
	must(t, err)
	return strings.TrimSpace(string(b))
}

func TestBridge(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	op := bridgeOp("gwt0")
	op.MTU = 1400
	for range 2 {
		apply(t, k, op)
		l := findLink(t, observe(t, k), "gwt0")
		want := vnet.Link{Name: "gwt0", Kind: "bridge", Type: 1, MAC: op.MAC, MTU: 1400, Alias: "gangway:gwt0", Group: op.Group}
		if d := cmp.Diff(want, l, cmpopts.IgnoreFields(vnet.Link{}, "Index", "RxBytes", "TxBytes")); d != "" {
			t.Error("observed bridge (-want +got):\n", d)
		}
		for key, want := range map[string]string{"accept_ra": "0", "autoconf": "0", "addr_gen_mode": "0"} {
			if got := sysctl(t, "net/ipv6/conf/gwt0/"+key); got != want {
				t.Errorf("%s is %s, not %s", key, got, want)
			}
		}
		details := ip(t, "-d", "link", "show", "gwt0")
		for _, word := range []string{"forward_delay 0 ", "stp_state 0 ", "mcast_snooping 0 ", "state DOWN"} {
			if !strings.Contains(details, word) {
				t.Errorf("no %q in: %s", word, details)
			}
		}
	}
	mac := vnet.BridgeMAC("other", "x").String()
	changes := []plan.Op{plan.SetMTU{Name: "gwt0", MTU: 1300}, plan.SetMAC{Name: "gwt0", MAC: mac},
		plan.SetGroup{Name: "gwt0", Group: plan.GroupBridge}, plan.SetMulticastSnooping{Name: "gwt0", On: true}, plan.SetLinkUp{Name: "gwt0"}}
	for range 2 {
		apply(t, k, changes...)
		l := findLink(t, observe(t, k), "gwt0")
		if l.MTU != 1300 || l.MAC != mac || l.Group != plan.GroupBridge || !l.MulticastSnooping || !l.Up {
			t.Errorf("after the changes: %+v", l)
		}
	}
	apply(t, k, plan.SetMulticastSnooping{Name: "gwt0", On: false}, op)
	if l := findLink(t, observe(t, k), "gwt0"); l.MulticastSnooping || l.MAC != op.MAC || !l.Up {
		t.Errorf("created again over a running one: %+v", l)
	}
	apply(t, k, plan.DeleteBridge{Name: "gwt0", Alias: "gangway:another"})
	findLink(t, observe(t, k), "gwt0")
	for range 2 {
		apply(t, k, plan.DeleteBridge{Name: "gwt0", Alias: op.Alias})
		if _, there := observeLink(t, k, "gwt0"); there {
			t.Error("still there after deletion")
		}
	}
}

func observeLink(t *testing.T, k *Kernel, name string) (vnet.Link, bool) {
	have := observe(t, k)
	return have.LinkByName(name)
}

func TestBridgeKeepsItsMTU(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	for _, mtu := range []int{1280, 1500, 65535} {
		op := bridgeOp("gwt0")
		op.MTU = mtu
		index := veth(t, "gwtp", "gwtq")
		ip(t, "link", "set", "gwtp", "mtu", "1290")
		apply(t, k, op, plan.AddPort{Bridge: "gwt0", Interface: "gwtp", Index: index})
		if l := findLink(t, observe(t, k), "gwt0"); l.MTU != mtu {
			t.Errorf("a port with MTU 1290 made the bridge's %d of %d", l.MTU, mtu)
		}
		apply(t, k, plan.DeleteBridge{Name: "gwt0", Alias: op.Alias})
		ip(t, "link", "del", "gwtp")
	}
}

func TestForeignLinksAreRefused(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	ip(t, "link", "add", "gwt0", "type", "bridge")
	ip(t, "link", "add", "gwt1", "type", "bridge")
	ip(t, "link", "set", "gwt1", "alias", "docker")
	index := veth(t, "gwtp", "gwtq")
	before := ip(t, "-d", "-o", "link")
	refused(t, k, bridgeOp("gwt0"), `cannot create bridge "gwt0"`, "taken", "bridge without an alias")
	refused(t, k, bridgeOp("gwt1"), `"docker"`)
	refused(t, k, bridgeOp("gwtp"), "a veth")
	refused(t, k, plan.AddPort{Bridge: "gwt0", Interface: "gwtp", Index: index}, `cannot add port "gwtp" to "gwt0"`, "not a bridge of ours")
	refused(t, k, plan.BouncePort{Interface: "gwtp"}, "not a port")
	apply(t, k, plan.DeleteBridge{Name: "gwt0", Alias: "gangway:gwt0"}, plan.DeleteBridge{Name: "gwtp", Alias: ""})
	if after := ip(t, "-d", "-o", "link"); after != before {
		t.Errorf("foreign links changed:\n%s\n%s", before, after)
	}
}

// A process that is killed between creating the bridge and naming it ours leaves a bridge
// without an alias: the next one completes it.
func TestHalfMadeBridgeIsCompleted(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	op := bridgeOp("gwt0")
	apply(t, k, op)
	ip(t, "link", "set", "gwt0", "alias", "")
	must(t, os.WriteFile("/proc/sys/net/ipv6/conf/gwt0/accept_ra", []byte("1"), 0))
	apply(t, k, op)
	if l := findLink(t, observe(t, k), "gwt0"); l.Alias != op.Alias || sysctl(t, "net/ipv6/conf/gwt0/accept_ra") != "0" {
		t.Errorf("not completed: %+v", l)
	}
}

func TestAddress(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	p := netip.MustParsePrefix("192.168.231.1/24")
	apply(t, k, bridgeOp("gwt0"))
	ip(t, "address", "add", "10.9.9.9/32", "dev", "gwt0")
	index := findLink(t, observe(t, k), "gwt0").Index
	for range 2 {
		apply(t, k, plan.AddAddress{Link: "gwt0", Prefix: p}, plan.SetLinkUp{Name: "gwt0"})
		have := observe(t, k)
		if !slices.Contains(have.Addresses, vnet.Address{Link: index, Prefix: p}) {
			t.Errorf("%s is not among %v", p, have.Addresses)
		}
		route := vnet.Route{Table: 254, Dst: p.Masked(), Link: index, Source: p.Addr(), Protocol: 2, Scope: 253, Type: 1}
		if !slices.Contains(have.Routes, route) {
			t.Errorf("no prefix route %+v among %+v", route, have.Routes)
		}
		if text := ip(t, "-o", "-4", "address", "show", "gwt0"); !strings.Contains(text, "192.168.231.1/24 brd 192.168.231.255 ") {
			t.Errorf("no broadcast address: %s", text)
		}
	}
	for range 2 {
		apply(t, k, plan.DeleteAddress{Link: "gwt0", Prefix: p}, plan.DeleteAddress{Link: "gwt-absent", Prefix: p})
		if text := ip(t, "-o", "-4", "address", "show", "gwt0"); strings.Contains(text, "192.168.231.1") || !strings.Contains(text, "10.9.9.9") {
			t.Errorf("after deletion: %s", text)
		}
	}
	refused(t, k, plan.AddAddress{Link: "gwt-absent", Prefix: p}, `cannot add address 192.168.231.1/24 to "gwt-absent"`)
}

func TestBroadcast(t *testing.T) {
	for prefix, want := range map[string]string{"10.1.2.3/8": "10.255.255.255", "192.168.1.5/29": "192.168.1.7",
		"192.168.1.1/30": "192.168.1.3", "192.168.1.1/31": "invalid IP", "192.168.1.1/32": "invalid IP", "0.0.0.0/0": "255.255.255.255"} {
		if got, _ := broadcast(netip.MustParsePrefix(prefix)); got.String() != want {
			t.Errorf("broadcast of %s is %s, not %s", prefix, got, want)
		}
	}
}

func TestApplyWithEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	k := newKernel(t)
	outcomes := k.Apply(ctx, []plan.Op{plan.SetLinkUp{Name: "gwt-absent"}, plan.StopServer{}})
	if len(outcomes) != 2 || !errors.Is(outcomes[0].Err, context.Canceled) {
		t.Errorf("outcomes: %v", outcomes)
	}
}

func TestOthersOperationsAreRefused(t *testing.T) {
	if isolated(t) {
		refused(t, newKernel(t), plan.StopServer{Network: "x"}, "link room")
	}
}
