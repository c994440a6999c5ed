package firewall

import (
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gangway/service/plan"
)

func forLaptops(t *testing.T, test func(t *testing.T, l *laptop)) {
	for _, program := range backends {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			test(t, newLaptop(t, program))
		})
	}
}

func TestGuestsReachOutside(t *testing.T) {
	forLaptops(t, func(t *testing.T, l *laptop) {
		const asked = server + ":7"
		both(t, l.alice, asked, "192.0.2.2", "192.0.2.2")
		l.alice.run("ping", "-c1", "-W10", server)

		// To the other uplink, with netlink messages only.
		rules := saved(l.host, l.firewall)
		apply(t, l.firewall, add(plan.SetOut, homeNet+",wlan0"), add(plan.SetNAT, homeNet+",wlan0"))
		l.host.sh("ip route replace default via 198.51.100.1")
		both(t, l.alice, asked, "198.51.100.2", "198.51.100.2")
		apply(t, l.firewall, remove(plan.SetOut, homeNet+",wlan0"), remove(plan.SetNAT, homeNet+",wlan0"))
		both(t, l.alice, asked, refused, unreachable)
		if saved(l.host, l.firewall) != rules {
			t.Error("the switch has changed rules")
		}
		l.host.sh("ip route replace default via 192.0.2.1")
		both(t, l.bob, asked, "192.0.2.2", "192.0.2.2")

		// carol's network is isolated.
		both(t, l.carol, asked, refused, unreachable)
		// Neither somebody else's bridge nor another network of ours is a way out.
		both(t, l.alice, "172.17.0.2:7", refused, unreachable)
		both(t, l.alice, "192.168.232.10:7", refused, unreachable)
		both(t, l.carol, "192.168.231.10:7", refused, unreachable)

		for _, site := range []*namespace{l.dock, l.cafe} {
			if got := strings.TrimSpace(l.leaks(site)); got != "0" {
				t.Errorf("%s packets with a guest's source reached %s", got, site.name)
			}
		}
	})
}

func TestRoutedNetwork(t *testing.T) {
	forLaptops(t, func(t *testing.T, l *laptop) {
		// From outside, guests can't be reached; not even translated ones, by who knows the way.
		for _, who := range []*namespace{l.dock, l.cafe, l.box} {
			both(t, who, "192.168.231.10:7", refused, refused)
			both(t, who, "192.168.232.10:7", refused, refused)
		}
		apply(t, l.firewall, add(plan.SetOut, labNet+",eth0"), add(plan.SetInbound, labNet+",gway1"))
		both(t, l.carol, server+":7", "192.168.232.10", "192.168.232.10") // not translated
		both(t, l.dock, "192.168.232.10:7", "192.0.2.1", "192.0.2.1")
		both(t, l.dock, "192.168.231.10:7", refused, refused)
		both(t, l.alice, "192.168.232.10:7", refused, unreachable) // not from a network of ours
		apply(t, l.firewall, remove(plan.SetInbound, labNet+",gway1"))
		both(t, l.dock, "192.168.232.10:7", refused, refused)
		both(t, l.carol, server+":7", "192.168.232.10", "192.168.232.10")
	})
}

func TestSpoofedSource(t *testing.T) {
	forLaptops(t, func(t *testing.T, l *laptop) {
		l.alice.sh("ip addr add 10.99.99.99/32 dev eth0; ip addr add 192.168.232.77/32 dev eth0")
		// The host knows the way back: it isn't routing that stands in the way.
		l.host.sh("ip route add 10.99.99.99/32 dev gway0")
		for _, source := range []string{"10.99.99.99", "192.168.232.77"} {
			for _, network := range []string{"tcp", "udp"} {
				check{l.alice, network, source, server + ":7", silence}.run(t)
				check{l.alice, network, source, "192.168.231.1:53", silence}.run(t)
				check{l.alice, network, source, "192.168.231.1:7", silence}.run(t)
			}
		}
		both(t, l.alice, server+":7", "192.0.2.2", "192.0.2.2")
	})
}

func TestHostServices(t *testing.T) {
	forLaptops(t, func(t *testing.T, l *laptop) {
		both(t, l.alice, "192.168.231.1:53", "192.168.231.10", "192.168.231.10")
		check{l.alice, "udp", "", "192.168.231.1:67", "192.168.231.10"}.run(t)
		l.alice.run("ping", "-c1", "-W10", "192.168.231.1")
		both(t, l.alice, "192.168.231.1:7", refused, refused)
		both(t, l.alice, "192.0.2.2:7", refused, refused)
		both(t, l.alice, "192.168.232.1:53", refused, refused) // another network's
		both(t, l.carol, "192.168.232.1:7", "192.168.232.10", "192.168.232.10")
		both(t, l.carol, "192.168.232.1:53", "192.168.232.10", "192.168.232.10")
		// The host reaches its guests, and the answers the host.
		both(t, l.host, "192.168.231.10:7", "192.168.231.1", "192.168.231.1")
		both(t, l.host, "192.168.232.10:7", "192.168.232.1", "192.168.232.1")

		// Nobody outside gets DNS or DHCP from the bridge's address; what isn't ours is untouched.
		both(t, l.dock, "192.168.231.1:53", silence, silence)
		check{l.dock, "udp", "", "192.168.231.1:67", silence}.run(t)
		both(t, l.dock, "192.0.2.2:7", "192.0.2.1", "192.0.2.1")
		both(t, l.dock, "192.0.2.2:53", "192.0.2.1", "192.0.2.1")
	})
}

// TCP is refused by resets: ICMP errors are limited to a few a second, and some systems
// don't heed them.
func TestRefusalsAreNotLimited(t *testing.T) {
	forLaptops(t, func(t *testing.T, l *laptop) {
		l.host.run("sysctl", "-qw", "net.ipv4.icmp_ratelimit=1000000") // ms between two, after a burst of six
		for range 10 {
			check{l.alice, "tcp", "", "192.168.231.1:7", refused}.run(t)
			check{l.alice, "tcp", "", "172.17.0.2:7", refused}.run(t)
		}
	})
}

// Docker sets FORWARD's policy to DROP, and br_netfilter sends bridged frames there.
func TestForwardPolicyDrop(t *testing.T) {
	forLaptops(t, func(t *testing.T, l *laptop) {
		l.host.run(l.firewall.ipv4.name, "-P", "FORWARD", "DROP")
		both(t, l.alice, "192.168.231.11:7", "192.168.231.10", "192.168.231.10")
		both(t, l.alice, server+":7", "192.0.2.2", "192.0.2.2")
		// Guests may speak from any address among themselves.
		l.alice.run("ip", "addr", "add", "10.1.1.1/24", "dev", "eth0")
		l.bob.run("ip", "addr", "add", "10.1.1.2/24", "dev", "eth0")
		both(t, l.alice, "10.1.1.2:7", "10.1.1.1", "10.1.1.1")

		// It is our rule that does it, and after a flush we have it back.
		l.host.run(l.firewall.ipv4.name, "-F")
		both(t, l.alice, "192.168.231.11:7", silence, silence)
		both(t, l.alice, server+":7", silence, silence)
		if observe(t, l.firewall).Chains {
			t.Error("the flush wasn't noticed")
		}
		apply(t, l.firewall, plan.InstallChains{})
		both(t, l.alice, "192.168.231.11:7", "192.168.231.10", "192.168.231.10")
		both(t, l.alice, server+":7", "192.0.2.2", "192.0.2.2")
	})
}

// The uplink's MTU is smaller than the guests', and nobody sends "fragmentation needed".
func TestSegmentSize(t *testing.T) {
	forLaptops(t, func(t *testing.T, l *laptop) {
		l.host.run("ip", "link", "set", "eth0", "mtu", "1300")
		const most = 1300 - 40
		var listener net.Listener
		l.dock.do(func() {
			var err error
			if listener, err = net.Listen("tcp4", ":8"); err != nil {
				panic(err)
			}
		})
		defer listener.Close()
		var client net.Conn
		var err error
		l.alice.do(func() { client, err = net.DialTimeout("tcp4", server+":8", patience) })
		must(t, err)
		defer client.Close()
		accepted, err := listener.Accept()
		must(t, err)
		defer accepted.Close()
		for name, c := range map[string]net.Conn{"guest": client, "server": accepted} {
			raw, err := c.(*net.TCPConn).SyscallConn()
			must(t, err)
			must(t, raw.Control(func(fd uintptr) {
				size, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG)
				if err != nil || size > most || size < most-40 {
					t.Errorf("the %s's segments have %d bytes (%v), want at most %d", name, size, err, most)
				}
			}))
		}
	})
}

// A client that reads raw packets sees whole checksums in DHCP answers.
func TestChecksum(t *testing.T) {
	forLaptops(t, func(t *testing.T, l *laptop) {
		var fd int
		l.alice.do(func() {
			var err error
			fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_IP)))
			if err != nil {
				panic(err)
			}
		})
		defer unix.Close(fd)
		must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(patience / time.Second)}))
		for port, want := range map[uint16]bool{68: true, 6868: false} {
			conn, err := net.Dial("udp4", fmt.Sprintf("192.168.231.10:%d", port))
			must(t, err)
			_, err = conn.Write([]byte("an offer"))
			conn.Close()
			must(t, err)
			if got := checksumHolds(t, fd, port); got != want {
				t.Errorf("the checksum of a packet to port %d holds: %v, want %v", port, got, want)
			}
		}
	})
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// checksumHolds receives IPv4 packets until one over UDP to the port comes, and verifies its
// checksum (RFC 768).
func checksumHolds(t *testing.T, fd int, port uint16) bool {
	t.Helper()
	b := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(fd, b, 0)
		must(t, err)
		p := b[:n]
		if n < 28 || p[0] != 0x45 || p[9] != unix.IPPROTO_UDP || binary.BigEndian.Uint16(p[22:]) != port {
			continue
		}
		sum := uint32(unix.IPPROTO_UDP) + uint32(binary.BigEndian.Uint16(p[24:]))
		for i := 12; i+1 < n; i += 2 {
			sum += uint32(binary.BigEndian.Uint16(p[i:]))
		}
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		return sum == 0xffff
	}
}
