package firewall

import (
	"encoding/binary"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"gangway/service/plan"
)

// tunnel makes a TUN device, up, whose packets nobody reads. It has a carrier until the test ends.
func (n *namespace) tunnel(ifname string) {
	n.t.Helper()
	var fd int
	n.do(func() {
		var err error
		if fd, err = unix.Open("/dev/net/tun", os.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			panic(err)
		}
		request, err := unix.NewIfreq(ifname)
		if err != nil {
			panic(err)
		}
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			panic(err)
		}
	})
	n.t.Cleanup(func() { unix.Close(fd) })
	n.sh("ip link set %[1]s up; ip addr add 10.8.0.2/24 dev %[1]s; ip addr add fd08::2/64 dev %[1]s nodad", ifname)
}

const floodPort = 9999

// flood is a guest that sends numbered datagrams to a server as fast as it can, all of one flow, and what arrives at the
// other end of an uplink.
type flood struct {
	sent atomic.Uint32 // the number of the latest, which may not have left yet

	mu      sync.Mutex
	arrived []uint32
}

// newFlood floods until the test ends.
func newFlood(t *testing.T, guest, site *namespace, to string) *flood {
	t.Helper()
	f := &flood{}
	kind := uint16(unix.ETH_P_IP)
	header := 20
	if version(to) == "6" {
		kind, header = unix.ETH_P_IPV6, 40
	}
	var fd int
	var conn net.Conn
	site.do(func() {
		var err error
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(htons(kind))); err != nil {
			panic(err)
		}
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			panic(err)
		}
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(kind), Ifindex: link.Index}); err != nil {
			panic(err)
		}
	})
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20))
	must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}))
	guest.do(func() {
		var err error
		if conn, err = net.Dial("udp", net.JoinHostPort(strings.Trim(to, "[]"), strconv.Itoa(floodPort))); err != nil {
			panic(err)
		}
	})
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		b := make([]byte, 2048)
		for {
			n, _, err := unix.Recvfrom(fd, b, 0)
			select {
			case <-stop:
				return
			default:
			}
			if err == nil && n >= header+12 && binary.BigEndian.Uint16(b[header+2:]) == floodPort {
				f.mu.Lock()
				f.arrived = append(f.arrived, binary.BigEndian.Uint32(b[header+8:]))
				f.mu.Unlock()
			}
		}
	})
	running.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				// Errors are port unreachable: the server listens to nobody.
				_, _ = conn.Write(binary.BigEndian.AppendUint32(nil, f.sent.Add(1)))
			}
		}
	})
	t.Cleanup(func() { close(stop); running.Wait(); conn.Close(); unix.Close(fd) })
	return f
}

// between counts what has arrived of those numbered after the one up to the other.
func (f *flood) between(after, to uint32) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	count := 0
	for _, number := range f.arrived {
		if number > after && number <= to {
			count++
		}
	}
	return count
}

// passes waits for a datagram that is sent from now on to arrive.
func (f *flood) passes(t *testing.T) {
	t.Helper()
	now := f.sent.Load()
	eventually(t, "a datagram arrives", func() bool { return f.between(now, ^uint32(0)) > 0 })
}

// while runs up, meanwhile, and down, a thousand datagrams or more after up, and returns how many of those that
// were sent in between have arrived: those that were sent when up had ended, before down began.
func (f *flood) while(t *testing.T, up, meanwhile, down func()) int {
	t.Helper()
	f.passes(t)
	up()
	begin := f.sent.Load()
	meanwhile()
	eventually(t, "a thousand datagrams are sent", func() bool { return f.sent.Load() > begin+1000 })
	end := f.sent.Load()
	down()
	f.passes(t) // behind the others
	return f.between(begin, end)
}

func nothing() {}

// vpns are the ways in which VPNs take the host's traffic.
var vpns = []struct{ name, up, down string }{
	{"better metric", `ip -4 route add default dev tun0 metric 50; ip -6 route add default dev tun0 metric 50`,
		`ip -4 route del default dev tun0; ip -6 route del default dev tun0`},
	{"halves", `ip -4 route add 0.0.0.0/1 dev tun0; ip -4 route add 128.0.0.0/1 dev tun0; ip -6 route add ::/1 dev tun0; ip -6 route add 8000::/1 dev tun0`,
		`ip -4 route del 0.0.0.0/1; ip -4 route del 128.0.0.0/1; ip -6 route del ::/1; ip -6 route del 8000::/1`},
	{"rule", `for f in -4 -6; do ip $f route add default dev tun0 table 51820; ip $f rule add not fwmark 51820 priority 32000 lookup 51820; done`,
		`for f in -4 -6; do ip $f rule del priority 32000; ip $f route del default dev tun0 table 51820; done`},
}

// boundLaptop is a laptop whose guests have a default route of their own by eth0, in front of whatever VPNs do, as
// a network's that follows the host.
func boundLaptop(t *testing.T) *laptop {
	l := newLaptop6(t, "iptables-nft")
	l.host.tunnel("tun0")
	l.host.sh(`
		ip -4 route replace default via 192.0.2.1 metric 100; ip -4 route del default via 192.0.2.1 metric 0
		for f in -4 -6; do
			ip $f rule add iif gway0 priority 21100 lookup main suppress_prefixlength 1
			ip $f rule add iif gway0 priority 21200 lookup 777
		done
		ip -4 route add default via 192.0.2.1 table 777; ip -6 route add default via 2001:db8:d::1 table 777`)
	return l
}

var followForward = plan.ForwardSpec{Follow: []string{"gway0"}, Plain: []string{"eth0", "wlan0"}}

// From the moment in which the kernel has a VPN's routes, not one packet of a guest's that follows the host
// passes it by.
func TestForwardPastTunnel(t *testing.T) {
	for _, to := range []string{server, "[" + server6 + "]"} {
		t.Run("IPv"+version(to), func(t *testing.T) {
			l := boundLaptop(t)
			f := newFlood(t, l.alice, l.dock, to)
			for _, vpn := range vpns {
				up, down := func() { l.host.sh("%s", vpn.up) }, func() { l.host.sh("%s", vpn.down) }
				apply(t, l.firewall, plan.DeleteForward{})
				if got := f.while(t, up, nothing, down); got == 0 {
					t.Errorf("%s: without the filter nothing passed the VPN by: the test shows nothing", vpn.name)
				}
				apply(t, l.firewall, plan.SetForward{Spec: followForward})
				for round := range 3 {
					if got := f.while(t, up, nothing, down); got > 0 {
						t.Errorf("%s, round %d: %d datagrams passed the VPN by", vpn.name, round, got)
					}
				}
				if l.host.forwarded()["past a tunnel"] < 1000 { // some get lost on the way under load
					t.Errorf("%s: counted: %v", vpn.name, l.host.forwarded())
				}
				// A filter takes another's place: there is no moment without.
				replace := func() {
					other := followForward
					other.Hairpin = []string{"gway0"}
					for range 20 {
						apply(t, l.firewall, plan.SetForward{Spec: other}, plan.SetForward{Spec: followForward})
					}
				}
				if got := f.while(t, up, replace, down); got > 0 {
					t.Errorf("%s: while it was replaced %d datagrams passed the VPN by", vpn.name, got)
				}
			}
		})
	}
}

// What isn't about a tunnel that the host itself goes into for that destination is let pass.
func TestForwardLetsPass(t *testing.T) {
	for _, to := range []string{server, "[" + server6 + "]"} {
		t.Run("IPv"+version(to), func(t *testing.T) {
			l := boundLaptop(t)
			f := newFlood(t, l.alice, l.dock, to)
			for _, test := range []struct {
				name, up, down string
				spec           plan.ForwardSpec
			}{
				{"VPN to elsewhere", "ip route add 10.0.0.0/8 dev tun0; ip -6 route add fd00::/8 dev tun0",
					"ip route del 10.0.0.0/8 dev tun0; ip -6 route del fd00::/8 dev tun0", followForward},
				{"host without a route", "ip -4 route del default; ip -6 route del default",
					"ip -4 route add default via 192.0.2.1 metric 100; ip -6 route add default via 2001:db8:d::1", followForward},
				{"host by the other uplink", "ip -4 route add default via 198.51.100.1; ip -6 route add default via 2001:db8:c::1 metric 50",
					"ip -4 route del default via 198.51.100.1; ip -6 route del default via 2001:db8:c::1", followForward},
				{"network that doesn't follow", vpns[0].up, vpns[0].down, plan.ForwardSpec{Follow: []string{"gway1"}, Plain: []string{"eth0", "wlan0"}}},
				{"uplink that isn't plain", vpns[0].up, vpns[0].down, plan.ForwardSpec{Follow: []string{"gway0"}, Plain: []string{"wlan0"}}},
				{"nobody follows", vpns[0].up, vpns[0].down, plan.ForwardSpec{Plain: []string{"eth0", "wlan0"}}},
			} {
				apply(t, l.firewall, plan.SetForward{Spec: test.spec})
				if got := f.while(t, func() { l.host.sh("%s", test.up) }, nothing, func() { l.host.sh("%s", test.down) }); got == 0 {
					t.Errorf("%s: nothing passed", test.name)
				}
				if got := l.host.forwarded()["past a tunnel"]; got > 0 {
					t.Errorf("%s: %d packets were dropped", test.name, got)
				}
			}
		})
	}
}
