package gate

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"gangway/service/vnet"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// watchBuffer is small: messages are only counted, and not even that when some are lost.
	watchBuffer = 64 << 10
	// rtextFilterSkipStats leaves the statistics out (linux/rtnetlink.h).
	rtextFilterSkipStats = 1 << 3
)

// subscribe opens a socket that hears of every change of a link.
func subscribe() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("cannot open a netlink socket: %w", err)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, watchBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, watchBuffer)
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.RTNLGRP_LINK)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot subscribe to links: %w", err)
	}
	return os.NewFile(uintptr(fd), "rtnetlink"), nil
}

// await returns when something came, and takes all of it away unread: what it says may be outdated
// by the next message. That messages were lost (ENOBUFS) says as much as a message: the socket
// goes on, and whoever waits looks at everything anyway. An error is the socket's, or its deadline.
func await(socket *os.File) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	var scrap [1]byte
	some := false
	err = raw.Read(func(fd uintptr) bool {
		for {
			_, _, failure = unix.Recvfrom(int(fd), scrap[:], 0)
			switch {
			case failure == nil, errors.Is(failure, unix.ENOBUFS):
				some = true
			case errors.Is(failure, unix.EINTR):
			case errors.Is(failure, unix.EAGAIN):
				failure = nil
				return some
			default:
				return true
			}
		}
	})
	return errors.Join(err, failure)
}

// links lists what matters of the links. The error is nl.ErrDumpInterrupted when links came or
// went meanwhile.
func links() (k vnet.Kernel, err error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(rtextFilterSkipStats)))
	err = req.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWLINK, func(b []byte) bool {
		if l, ok := parse(b); ok {
			k.Links = append(k.Links, l)
		}
		return true
	})
	if err != nil {
		err = fmt.Errorf("cannot list links: %w", err)
	}
	return k, err
}

// parse reads the body of a RTM_NEWLINK.
func parse(b []byte) (l vnet.Link, ok bool) {
	if len(b) < unix.SizeofIfInfomsg {
		return l, false
	}
	head := nl.DeserializeIfInfomsg(b)
	l = vnet.Link{Index: int(head.Index), Up: head.Flags&unix.IFF_UP != 0, Carrier: head.Flags&unix.IFF_LOWER_UP != 0}
	attributes, err := nl.ParseRouteAttr(b[unix.SizeofIfInfomsg:])
	if err != nil {
		return l, false
	}
	for _, a := range attributes {
		switch a.Attr.Type & nl.NLA_TYPE_MASK {
		case unix.IFLA_IFNAME:
			l.Name = text(a.Value)
		case unix.IFLA_IFALIAS:
			l.Alias = text(a.Value)
		case unix.IFLA_MASTER:
			l.Master = int(number(a.Value))
		case unix.IFLA_GROUP:
			l.Group = number(a.Value)
		case unix.IFLA_LINKINFO:
			info, err := nl.ParseRouteAttr(a.Value)
			for _, i := range info {
				if err == nil && i.Attr.Type == unix.IFLA_INFO_KIND {
					l.Kind = text(i.Value)
				}
			}
		}
	}
	return l, l.Name != ""
}

func text(b []byte) string { return strings.TrimRight(string(b), "\x00") }

func number(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return nl.NativeEndian().Uint32(b)
}

// setUp sets or clears IFF_UP. A link that is gone needs neither.
func setUp(index int, up bool) error {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	head := nl.NewIfInfomsg(unix.AF_UNSPEC)
	head.Index = int32(index)
	head.Change = unix.IFF_UP
	if up {
		head.Flags = unix.IFF_UP
	}
	req.AddData(head)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}
