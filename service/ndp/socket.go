package ndp

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Room for a frame: of a router as large as jumbo frames get, of a guest's solicitation what
// fits Ethernet. What is longer arrives cut, and is no valid message then.
const (
	routerFrame = 9216
	guestFrame  = 2048
)

// How many frames of an interface are looked at in a time; what is more waits, and what is more than
// the socket's buffer holds is dropped by the kernel, which is cheaper than looking at it.
const (
	floodFrames = 200
	floodTime   = 100 * time.Millisecond
)

// groups are Ethernet groups that an interface is to receive.
type groups int

const (
	noGroups groups = iota
	allNodes        // that of ff02::1 (RFC 2464 7)
	allGroups
)

func (g groups) membership(index int) *unix.PacketMreq {
	switch g {
	case allNodes:
		return &unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_MULTICAST, Alen: 6, Address: [8]byte{0x33, 0x33, 0, 0, 0, 1}}
	case allGroups:
		return &unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_ALLMULTI}
	}
	return nil
}

// networkOrder is a 16-bit number in network byte order, as packet(7) wants protocols.
func networkOrder(n uint16) uint16 { return n<<8 | n>>8 }

// listener receives the frames of one interface that pass a filter.
type listener struct {
	index  int
	socket *os.File
}

// listen opens a listener. The socket sees all protocols (ETH_P_ALL), since those of one alone run behind tc;
// the filter is attached before it is bound, so that nothing else gets in.
// With groups, the interface receives what goes to them even when the kernel's IPv6 doesn't ask it to.
func listen(index int, filter []unix.SockFilter, groups groups) (*listener, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open a packet socket: %w", err)
	}
	steps := []func() error{
		func() error {
			return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
				&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
		},
		// Spares the kernel a copy of each frame that is sent.
		func() error { return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1) },
		func() error {
			return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: index})
		},
	}
	if membership := groups.membership(index); membership != nil {
		steps = append(steps, func() error {
			return unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, membership)
		})
	}
	for _, step := range steps {
		if err := step(); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("cannot listen on interface %d: %w", index, err)
		}
	}
	return &listener{index: index, socket: os.NewFile(uintptr(fd), "packet")}, nil
}

// receive hands each frame to each until the listener is closed. The frame is valid during the
// call.
func (l *listener) receive(size int, each func(frame []byte)) error {
	buf := make([]byte, size)
	count, since := 0, time.Now()
	for {
		if count++; count > floodFrames {
			time.Sleep(floodTime - time.Since(since))
			count = 0
		}
		if time.Since(since) >= floodTime {
			count, since = 0, time.Now()
		}
		n, err := l.socket.Read(buf)
		switch {
		case err == nil:
			each(buf[:n])
		case errors.Is(err, os.ErrClosed):
			return nil
		case errors.Is(err, unix.ENETDOWN), errors.Is(err, unix.ENOBUFS):
			// Told once when the interface goes down; it may come up again.
		default:
			return err
		}
	}
}

// close ends receive. It may take the kernel some milliseconds (it waits for all processors).
func (l *listener) close() { _ = l.socket.Close() }

// sender sends frames, each on the interface that it is told to.
type sender struct{ fd int }

func newSender() (*sender, error) {
	// Protocol 0 receives nothing.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open a packet socket: %w", err)
	}
	return &sender{fd: fd}, nil
}

// send sends one Ethernet frame out of the interface; it doesn't wait.
func (s *sender) send(index int, frame []byte) error {
	to := unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_IPV6), Ifindex: index}
	for {
		err := unix.Sendto(s.fd, frame, 0, &to)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (s *sender) close() { unix.Close(s.fd) }

// index returns the index of the interface with the name, as it is now: it may be newer than the last
// dump.
func (s *sender) index(name string) (int, error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(s.fd, unix.SIOCGIFINDEX, request); err != nil {
		return 0, err
	}
	return int(request.Uint32()), nil
}

// portError says which interface a frame couldn't be sent on.
type portError struct {
	index int
	err   error
}

func (e *portError) Error() string { return fmt.Sprintf("cannot send to port %d: %v", e.index, e.err) }
func (e *portError) Unwrap() error { return e.err }
