package link

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// watchGroups are the multicast groups of what Observe shows. Neighbours and what bridges
// learn are not among them; proxied neighbours have none.
var watchGroups = []int{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
	unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV4_NETCONF,
	unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_IPV6_NETCONF}

const (
	// watchBuffer absorbs bursts: a VPN client that installs thousands of routes.
	watchBuffer = 2 << 20
	// After a failure, Watch subscribes again at once, then with growing pauses.
	minPause, maxPause = 50 * time.Millisecond, 5 * time.Second
)

// Watch pokes whenever something changes that Observe shows, but not for statistics, caches,
// repetitions and what bridges learn, nor for proxied neighbours and those IPv6 routes that are
// neither default routes nor ours. It pokes once when it has subscribed ("watching"),
// and again ("resubscribed") whenever it had to do so anew, since changes may have been missed.
//
// It returns nil when ctx is done, and an error only if it can't subscribe in the first place.
func (k *Kernel) Watch(ctx context.Context, poke func(reason string)) error {
	return k.watch(ctx, watchBuffer, poke)
}

func (k *Kernel) watch(ctx context.Context, buffer int, poke func(reason string)) error {
	socket, err := subscribe(buffer)
	if err != nil {
		return err
	}
	poke("watching")
	for pause := time.Duration(0); ; {
		began := time.Now()
		err := listen(ctx, socket, poke)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > maxPause {
			pause = 0
		}
		for {
			k.log.Debug("netlink subscription lost", "error", err, "pause", pause)
			if !sleep(ctx, pause) {
				return nil
			}
			pause = min(max(2*pause, minPause), maxPause)
			if socket, err = subscribe(buffer); err == nil {
				break
			}
		}
		poke("resubscribed")
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return ctx.Err() == nil
}

// subscribe opens a socket that Go's poller waits for.
func subscribe(buffer int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("cannot open a netlink socket: %w", err)
	}
	// Without CAP_NET_ADMIN in the first user namespace (a container) a smaller buffer must do.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	for _, g := range watchGroups {
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g)
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot subscribe to netlink groups: %w", err)
	}
	return os.NewFile(uintptr(fd), "rtnetlink"), nil
}

// listen pokes for what comes until the socket fails or ctx is done, and closes the socket.
func listen(ctx context.Context, socket *os.File, poke func(reason string)) error {
	stop := context.AfterFunc(ctx, func() { _ = socket.SetReadDeadline(time.Unix(1, 0)) })
	defer socket.Close()
	defer stop()
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	seen := newSeen()
	buf := make([]byte, receiveBuffer)
	for {
		var n int
		var from unix.Sockaddr
		var failure error
		err := raw.Read(func(fd uintptr) bool {
			for failure = unix.EINTR; errors.Is(failure, unix.EINTR); {
				n, from, failure = unix.Recvfrom(int(fd), buf, unix.MSG_TRUNC)
			}
			return !errors.Is(failure, unix.EAGAIN)
		})
		if err == nil {
			err = failure
		}
		if err != nil {
			return err // ENOBUFS among them: something was lost
		}
		if a, ok := from.(*unix.SockaddrNetlink); !ok || a.Pid != 0 {
			continue // not from the kernel
		}
		if n > len(buf) {
			return unix.EMSGSIZE
		}
		reason := ""
		for rest := buf[:n]; len(rest) > 0; {
			var m message
			var ok bool
			if m, rest, ok = nextMessage(rest); !ok {
				return errTruncated
			}
			if r := seen.relevant(m); r != "" {
				reason = r
			}
		}
		if reason != "" {
			poke(reason)
		}
	}
}
