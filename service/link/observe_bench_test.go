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
// "kernel" receives the same dumps without reading them.
func BenchmarkObserve(b *testing.B) {
	for _, n := range []int{1, 10, 50, 200} {
		var keys []string
		for i := range n {
			keys = append(keys, fmt.Sprintf("net/ipv6/conf/gway%d/disable_ipv6", i))
		}
		for name, once := range map[string]func(b *testing.B, k *Kernel){
			"observe": func(b *testing.B, k *Kernel) { observe(b, k) },
			"keys":    func(b *testing.B, k *Kernel) { observe(b, k, keys...) },
			"kernel":  receiveOnly,
		} {
			b.Run(fmt.Sprintf("bridges=%d/%s", n, name), func(b *testing.B) {
				alone(b)
				k := kernelIn(b, b.TempDir())
				populate(b, k, n)
				b.ReportAllocs()
				for b.Loop() {
					once(b, k)
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

func populate(t testing.TB, k *Kernel, n int) {
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
	}
}

func receiveOnly(b *testing.B, k *Kernel) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, err := k.connect()
	must(b, err)
	for kind, head := range map[int]rawData{
		unix.RTM_GETLINK:    make(rawData, unix.SizeofIfInfomsg),
		unix.RTM_GETADDR:    make(rawData, unix.SizeofIfAddrmsg),
		unix.RTM_GETROUTE:   {unix.SizeofRtMsg - 1: 0, 0: unix.AF_INET},
		unix.RTM_GETRULE:    {sizeofFibRuleHdr - 1: 0, 0: unix.AF_INET},
		unix.RTM_GETNETCONF: {unix.AF_INET, 0, 0, 0},
	} {
		must(b, c.dump(dumpRequest(kind, head), func() {}, func(uint16, []byte) error { return nil }))
	}
}
