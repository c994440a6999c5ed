package link

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// receiveBuffer holds the largest datagram of a dump: the kernel fills at most 32 KiB
// (netlink_dump in net/netlink/af_netlink.c), a single message with virtual functions more.
const receiveBuffer = 128 << 10

// dumpAttempts is how often a dump is repeated that the kernel marks as interrupted by a
// change (NLM_F_DUMP_INTR). A machine that changes faster than that pokes again anyway.
const dumpAttempts = 8

// conn is a rtnetlink socket for requests, one at a time.
type conn struct {
	fd     int
	seq    uint32
	buf    []byte
	broken bool // an answer may still be in the queue, or the socket failed: dial again
}

func dial() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("cannot open a netlink socket: %w", err)
	}
	c := &conn{fd: fd, buf: make([]byte, receiveBuffer)}
	// The kernel answers within the system call; the timeout only ends a wait that would
	// otherwise be for ever.
	for _, set := range []func() error{
		func() error { return unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) },
		func() error { return unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1) },
		func() error { return unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1) },
		func() error { return unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1) },
		func() error {
			return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
		},
	} {
		if err := set(); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("cannot set up a netlink socket: %w", err)
		}
	}
	return c, nil
}

func (c *conn) close() { unix.Close(c.fd) }

// dump sends the request and hands each message of the answer to each, which must not keep
// the body. A dump that was interrupted by a change begins again after reset.
func (c *conn) dump(req *nl.NetlinkRequest, reset func(), each func(kind uint16, body []byte) error) error {
	var err error
	for range dumpAttempts {
		reset()
		err = c.exchange(req, each)
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			return err
		}
	}
	return err
}

// do sends a request that changes something and waits for its acknowledgement.
func (c *conn) do(req *nl.NetlinkRequest) error {
	req.Flags |= unix.NLM_F_ACK
	return c.exchange(req, func(uint16, []byte) error { return nil })
}

// exchange sends the request and reads until its answer is complete.
func (c *conn) exchange(req *nl.NetlinkRequest, each func(kind uint16, body []byte) error) error {
	c.seq++
	req.Seq = c.seq
	// Whatever goes wrong below but for the kernel's own refusal leaves the socket in an
	// unknown state.
	done := false
	defer func() { c.broken = c.broken || !done }()
	if err := unix.Sendto(c.fd, req.Serialize(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	interrupted := false
	for {
		n, from, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_TRUNC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		if n > len(c.buf) {
			return fmt.Errorf("netlink message of %d bytes: %w", n, unix.EMSGSIZE)
		}
		if a, ok := from.(*unix.SockaddrNetlink); !ok || a.Pid != 0 {
			continue // not from the kernel
		}
		for rest := c.buf[:n]; len(rest) > 0; {
			var m message
			var ok bool
			if m, rest, ok = nextMessage(rest); !ok {
				return errTruncated
			}
			if m.seq != c.seq {
				continue
			}
			if m.flags&unix.NLM_F_DUMP_INTR != 0 {
				interrupted = true
			}
			switch m.kind {
			case unix.NLMSG_ERROR, unix.NLMSG_DONE:
				done = true
				if err := answer(m); err != nil {
					return err
				}
				if interrupted {
					return nl.ErrDumpInterrupted
				}
				return nil
			case unix.NLMSG_NOOP:
			case unix.NLMSG_OVERRUN:
				return unix.ENOBUFS
			default:
				if err := each(m.kind, m.body); err != nil {
					return err
				}
				if m.flags&unix.NLM_F_MULTI == 0 && req.Flags&unix.NLM_F_ACK == 0 {
					done = true
					return nil
				}
			}
		}
	}
}

// answer is the error of a NLMSG_ERROR or NLMSG_DONE, with the kernel's own words.
func answer(m message) error {
	if len(m.body) < 4 {
		return nil
	}
	code := int32(native.Uint32(m.body))
	if code == 0 {
		return nil
	}
	err := error(unix.Errno(-code))
	if m.flags&unix.NLM_F_ACK_TLVS == 0 {
		return err
	}
	tlvs := m.body[4:]
	if m.kind == unix.NLMSG_ERROR { // the header of the request comes before
		tlvs = tlvs[min(unix.NLMSG_HDRLEN, len(tlvs)):]
	}
	for a := range attributes(tlvs) {
		if a.kind == unix.NLMSGERR_ATTR_MSG {
			return fmt.Errorf("%w (%s)", err, strings.TrimRight(a.text(), "."))
		}
	}
	return err
}
