package link

import (
	"fmt"
	"net/netip"
	"runtime"
	"syscall"
	"testing"

	"gangway/service/plan"
	"gangway/service/vnet"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// BenchmarkObserve measures a whole observation, with bridges as networks have them (address,
// two rules, one port whose other end is here, too). "keys" reads one more sysctl for each;
// "kernel" receives the same dumps without reading them; "routers" has bridges that are IPv6 routers, too, with
// a prefix, two rules and ten guests each.
func BenchmarkObserve(b *testing.B) {
	for _, n := range []int{0, 1, 10, 50, 200} {
		var keys []string
		for i := range n {
			keys = append(keys, fmt.Sprintf("net/ipv6/conf/gway%d/disable_ipv6", i))
		}
		for _, c := range []struct {
			name string
			six  bool
			once func(b *testing.B, k *Kernel)
		}{
			{"observe", false, func(b *testing.B, k *Kernel) { observe(b, k) }},
			{"keys", false, func(b *testing.B, k *Kernel) { observe(b, k, keys...) }},
			{"kernel", false, receiveOnly},
			{"routers", true, func(b *testing.B, k *Kernel) { observe(b, k) }},
		} {
			b.Run(fmt.Sprintf("bridges=%d/%s", n, c.name), func(b *testing.B) {
				alone(b)
				k := kernelIn(b, b.TempDir())
				populate(b, k, n, c.six)
				b.ReportAllocs()
				for b.Loop() {
					c.once(b, k)
				}
			})
		}
	}
}

// alone puts the benchmark's thread into a new network namespace; both end with the goroutine.
func alone(b *testing.B) {
	b.Helper()
	runtime.LockOSThread() // never unlocked: the thread isn't fit for anything else
	must(b, syscall.Unshare(syscall.CLONE_NEWNET))
}

func populate(t testing.TB, k *Kernel, n int, six bool) {
	t.Helper()
	for i := range n {
		name, port := fmt.Sprintf("gway%d", i), fmt.Sprintf("port%d", i)
		veth(t, port, fmt.Sprintf("peer%d", i))
		l, err := netlink.LinkByName(port)
		must(t, err)
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i), 1}), 24)
		apply(t, k, bridgeOp(name), plan.AddAddress{Link: name, Prefix: p}, plan.SetLinkUp{Name: name},
			plan.AddPort{Bridge: name, Interface: port, Index: l.Attrs().Index},
			plan.AddRule{Rule: vnet.Rule{Priority: plan.PriorityMain, IIF: name, Table: 254, Protocol: plan.Protocol}},
			plan.AddRule{Rule: vnet.Rule{Priority: plan.PriorityOwn, IIF: name, Table: plan.TableFollow,
				SuppressPrefixLength: -1, Protocol: plan.Protocol}})
		if six {
			populate6(t, k, name, byte(i))
		}
	}
}

func populate6(t testing.TB, k *Kernel, bridge string, i byte) {
	t.Helper()
	six := netip.AddrFrom16([16]byte{0: 0xfd, 7: i, 15: 1})
	apply(t, k, plan.AddAddress{Link: bridge, Prefix: netip.PrefixFrom(six, 64)},
		plan.AddRule{Rule: vnet.Rule{IPv6: true, Priority: plan.PriorityMain, IIF: bridge, Table: 254, Protocol: plan.Protocol}},
		plan.AddRule{Rule: vnet.Rule{IPv6: true, Priority: plan.PriorityOwn, IIF: bridge, Table: plan.TableFollow,
			SuppressPrefixLength: -1, Protocol: plan.Protocol}})
	for range 10 {
		six = six.Next()
		apply(t, k, plan.ReplaceRoute{LinkName: bridge, Route: vnet.Route{Table: 254, Dst: netip.PrefixFrom(six, 128), Metric: 1024,
			Protocol: plan.Protocol, Type: vnet.RouteUnicast}})
	}
}

func receiveOnly(b *testing.B, k *Kernel) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, err := k.connect()
	must(b, err)
	var have vnet.Kernel
	var conf []netconf
	for _, s := range append(steps(&have, &conf), steps6(unix.AF_INET6, &have, &conf)...) {
		must(b, c.dump(s.req, func() {}, func(uint16, []byte) error { return nil }))
	}
}
