package ndp

import (
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"gangway/service/ndp/message"
)

// captured is a frame with an ICMPv6 message.
type captured struct {
	message.Frame
	at   time.Time
	sent bool // by the interface, not received
	raw  []byte
}

// capture keeps what passes an interface. It shares no code with the room.
type capture struct {
	mu     sync.Mutex
	frames []captured
}

// inNamespace calls f in the namespace, "" for this one.
func inNamespace(t testing.TB, ns string, f func()) {
	t.Helper()
	if ns == "" {
		f()
		return
	}
	done := make(chan error)
	go func() { // ends with its thread, which is no good for anything else
		runtime.LockOSThread()
		handle, err := netns.GetFromName(ns)
		if err == nil {
			err = errors.Join(netns.Set(handle), handle.Close())
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	must(t, <-done)
}

func packetSocket(t testing.TB, ns, ifname string) (fd, index int) {
	t.Helper()
	inNamespace(t, ns, func() {
		i, err := net.InterfaceByName(ifname)
		if err != nil {
			t.Error(err)
			return
		}
		index = i.Index
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8, Ifindex: index})
		}
		if err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	return fd, index
}

// watch captures on an interface of the namespace, "" for this one, until the end of the test.
func (l *lab) watch(ns, ifname string) *capture {
	l.Helper()
	fd, _ := packetSocket(l, ns, ifname)
	file := os.NewFile(uintptr(fd), "capture")
	raw, err := file.SyscallConn()
	must(l, err)
	c := &capture{}
	var group sync.WaitGroup
	group.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			var n int
			var from unix.Sockaddr
			var failure error
			err := raw.Read(func(fd uintptr) bool {
				n, from, failure = unix.Recvfrom(int(fd), buf, 0)
				return !errors.Is(failure, unix.EAGAIN)
			})
			if err != nil {
				return
			}
			link, ok := from.(*unix.SockaddrLinklayer)
			if failure != nil || !ok {
				continue
			}
			raw := slices.Clone(buf[:n])
			if f, err := message.ParseFrame(raw); err == nil {
				c.mu.Lock()
				c.frames = append(c.frames, captured{f, time.Now(), link.Pkttype == unix.PACKET_OUTGOING, raw})
				c.mu.Unlock()
			}
		}
	})
	l.Cleanup(func() { file.Close(); group.Wait() })
	return c
}

// all returns what was captured and is picked.
func (c *capture) all(pick func(captured) bool) []captured {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []captured
	for _, f := range c.frames {
		if pick(f) {
			list = append(list, f)
		}
	}
	return list
}

func (c *capture) count(pick func(captured) bool) int { return len(c.all(pick)) }

func ofType(kind uint8) func(captured) bool {
	return func(f captured) bool { return f.Type() == kind }
}

// final tells whether a frame is an advertisement that ends its router, or a prefix.
func final(f captured) bool {
	ra, err := message.ParseRouterAdvertisement(f.Frame)
	if err != nil {
		return false
	}
	return ra.RouterLifetime() == 0 || slices.ContainsFunc(ra.Prefixes(), func(p message.Prefix) bool { return p.Valid == 0 })
}

// send puts a frame on an interface of the namespace, as whoever is there would.
func (l *lab) send(ns, ifname string, frame []byte) {
	l.Helper()
	l.flood(ns, ifname, frame, 1)
}

// flood sends it so many times.
func (l *lab) flood(ns, ifname string, frame []byte, times int) {
	l.Helper()
	fd, index := packetSocket(l, ns, ifname)
	defer unix.Close(fd)
	for range times {
		must(l, unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: index}))
	}
}
