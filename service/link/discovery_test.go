package link

import (
	"encoding/binary"
	"net"
	"net/netip"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// wire sends and hears neighbour discovery (RFC 4861) at one interface, as another machine behind it would.
type wire struct {
	t    *testing.T
	fd   int
	link int
	mac  net.HardwareAddr
	own  netip.Addr
}

const (
	neighbourSolicit = 135
	neighbourAdvert  = 136
)

// newWire listens at the interface, which has the address fe80::77 for the purpose. What is sent is received in the same
// order, which takes a processor of one's own: each has a queue.
func newWire(t *testing.T, name string) *wire {
	t.Helper()
	runtime.LockOSThread() // until the test ends
	var all, one unix.CPUSet
	must(t, unix.SchedGetaffinity(0, &all))
	for cpu := 0; one.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	must(t, unix.SchedSetaffinity(0, &one))
	l, err := netlink.LinkByName(name)
	must(t, err)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.ETH_P_ALL<<8)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index, Protocol: unix.ETH_P_ALL << 8}))
	return &wire{t: t, fd: fd, link: l.Attrs().Index, mac: l.Attrs().HardwareAddr, own: netip.MustParseAddr("fe80::77")}
}

// icmp makes a frame with an ICMPv6 message (RFC 4443 2.1, 2.3).
func (w *wire) icmp(to net.HardwareAddr, source, destination netip.Addr, hops uint8, body []byte) []byte {
	b := append(append(net.HardwareAddr{}, to...), w.mac...)
	b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(body)), unix.IPPROTO_ICMPV6, hops)
	b = append(append(b, source.AsSlice()...), destination.AsSlice()...)
	sum := uint32(len(body) + unix.IPPROTO_ICMPV6)
	for _, part := range [][]byte{b[22:54], body} {
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(part[i])<<8 | uint32(part[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(body[2:], ^uint16(sum))
	return append(b, body...)
}

func (w *wire) send(frame []byte) {
	w.t.Helper()
	must(w.t, unix.Sendto(w.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: w.link}))
}

// solicit asks who has the address, by multicast (RFC 4861 4.3).
func (w *wire) solicit(target netip.Addr) {
	w.t.Helper()
	a := target.As16()
	group := [16]byte{0: 0xff, 1: 0x02, 11: 0x01, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]}
	w.ask(net.HardwareAddr{0x33, 0x33, 0xff, a[13], a[14], a[15]}, netip.AddrFrom16(group), target)
}

// probe asks the MAC address whether it still has the address (RFC 4861 7.3.1).
func (w *wire) probe(to net.HardwareAddr, target netip.Addr) {
	w.t.Helper()
	w.ask(to, target, target)
}

func (w *wire) ask(to net.HardwareAddr, destination, target netip.Addr) {
	w.t.Helper()
	body := append([]byte{neighbourSolicit, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice()...)
	body = append(append(body, 1, 1), w.mac...)
	w.send(w.icmp(to, w.own, destination, 255, body))
}

// settle waits until all that was sent has been received, and tells whether there was an advertisement of watched
// meanwhile. own is an address of the host's at the interface.
func (w *wire) settle(own, watched netip.Addr) (advertised bool) {
	w.t.Helper()
	w.solicit(own)
	for {
		switch target, _ := w.advertised(); target {
		case own:
			return advertised
		case watched:
			advertised = true
		}
	}
}

// advertise says that it is a default router for half an hour (RFC 4861 4.2).
func (w *wire) advertise() {
	w.t.Helper()
	w.send(w.icmp(net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, w.own, netip.MustParseAddr("ff02::1"), 255,
		[]byte{134, 0, 0, 0, 64, 0, 1800 >> 8, 1800 & 0xff, 15: 0}))
}

// heard is an ICMPv6 message that came.
type heard struct {
	source, destination netip.Addr
	body                []byte
}

// hear waits for an ICMPv6 message that the condition holds for.
func (w *wire) hear(what string, condition func(heard) bool) (found heard) {
	w.t.Helper()
	buf := make([]byte, 2048)
	eventually(w.t, what, func() bool {
		for {
			n, from, err := unix.Recvfrom(w.fd, buf, 0)
			if err != nil {
				return false
			}
			if l, ok := from.(*unix.SockaddrLinklayer); !ok || l.Pkttype == unix.PACKET_OUTGOING {
				continue
			}
			if n < 62 || buf[12] != 0x86 || buf[13] != 0xdd || buf[20] != unix.IPPROTO_ICMPV6 {
				continue
			}
			source, _ := netip.AddrFromSlice(buf[22:38])
			destination, _ := netip.AddrFromSlice(buf[38:54])
			found = heard{source, destination, append([]byte(nil), buf[54:n]...)}
			if condition(found) {
				return true
			}
		}
	})
	return found
}

// advertised waits for the next neighbour advertisement, and returns for which address it is and its flags:
// 0x80 router, 0x40 solicited, 0x20 override (RFC 4861 4.4).
func (w *wire) advertised() (target netip.Addr, flags byte) {
	w.t.Helper()
	m := w.hear("a neighbour advertisement", func(h heard) bool { return h.body[0] == neighbourAdvert && len(h.body) >= 24 })
	target, _ = netip.AddrFromSlice(m.body[8:24])
	return target, m.body[4]
}
