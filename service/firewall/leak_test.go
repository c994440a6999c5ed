package firewall

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A packet that connection tracking calls invalid isn't translated: it must not leave. The
// reset of a connection whose entry was flushed is one.
func TestInvalidPacketStays(t *testing.T) {
	forLaptops(t, func(t *testing.T, l *laptop) {
		leaked := func() string {
			l.alice.reset("192.168.231.10", server)
			// Behind the reset on the same way.
			check{l.alice, "udp", "", server + ":7", "192.0.2.2"}.run(t)
			return strings.TrimSpace(l.leaks(l.dock))
		}
		if got := leaked(); got != "0" {
			t.Errorf("%s untranslated packets left", got)
		}
		l.host.run(l.firewall.ipv4.name, "-I", "FORWARD", "-p", "tcp", "-j", "ACCEPT")
		if got := leaked(); got != "1" {
			t.Errorf("without the rule, %s untranslated packets left: the test shows nothing", got)
		}
	})
}

// reset sends a TCP reset that belongs to no connection.
func (n *namespace) reset(from, to string) {
	n.t.Helper()
	source, destination := netip.MustParseAddr(from).As4(), netip.MustParseAddr(to).As4()
	p := make([]byte, 40)
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_TCP // the kernel fills in length and checksum
	copy(p[12:], source[:])
	copy(p[16:], destination[:])
	tcp := p[20:]
	binary.BigEndian.PutUint16(tcp, 4242)
	binary.BigEndian.PutUint16(tcp[2:], 7)
	tcp[12], tcp[13] = 5<<4, 4 // RST
	sum := uint32(unix.IPPROTO_TCP + len(tcp))
	for i := 12; i < len(p); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
	n.do(func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err == nil {
			err = unix.Sendto(fd, p, 0, &unix.SockaddrInet4{Addr: destination})
			unix.Close(fd)
		}
		if err != nil {
			panic(err)
		}
	})
}
