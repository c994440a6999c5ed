package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Types of Ethernet frames.
const (
	EtherIPv4 uint16 = unix.ETH_P_IP
	EtherIPv6 uint16 = unix.ETH_P_IPV6
	EtherARP  uint16 = unix.ETH_P_ARP
)

const (
	captureFrames = 1 << 17 // kept at most
	captureBytes  = 256     // kept of each
)

// Frame is one Ethernet frame as an interface saw it.
type Frame struct {
	Time     time.Time
	Outgoing bool   // the host sent it; otherwise it came in
	Data     []byte // from the Ethernet header on, at most 256 bytes
}

// Dst and Src are the MAC addresses.
func (f Frame) Dst() net.HardwareAddr { return net.HardwareAddr(f.Data[0:6]) }
func (f Frame) Src() net.HardwareAddr { return net.HardwareAddr(f.Data[6:12]) }

// EtherType is EtherIPv4 and so on.
func (f Frame) EtherType() uint16 { return binary.BigEndian.Uint16(f.Data[12:]) }

// SrcIP and DstIP are the addresses of an IP packet, or of ARP's sender and target; invalid for the rest.
func (f Frame) SrcIP() netip.Addr { return f.addr(26, 22, 28) }
func (f Frame) DstIP() netip.Addr { return f.addr(30, 38, 38) }

func (f Frame) addr(v4, v6, arp int) netip.Addr {
	at, size := 0, 4
	switch f.EtherType() {
	case EtherIPv4:
		at = v4
	case EtherIPv6:
		at, size = v6, 16
	case EtherARP:
		at = arp
	}
	if at == 0 || len(f.Data) < at+size {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(f.Data[at : at+size]) // the length is right
	return a
}

// Protocol is the IP protocol, or IPv6's first next header; -1 for what is not IP.
func (f Frame) Protocol() int {
	switch {
	case f.EtherType() == EtherIPv4 && len(f.Data) > 23:
		return int(f.Data[23])
	case f.EtherType() == EtherIPv6 && len(f.Data) > 20:
		return int(f.Data[20])
	}
	return -1
}

// SrcIn is a predicate for Count: the frame's IP source lies within the prefix.
func SrcIn(p netip.Prefix) func(Frame) bool {
	return func(f Frame) bool { return f.SrcIP().IsValid() && p.Contains(f.SrcIP()) }
}

// Capture records the frames of an interface until Close.
type Capture struct {
	file *os.File
	done chan struct{}

	mu      sync.Mutex
	frames  []Frame
	dropped int
	changed chan struct{}
}

// Capture starts recording what an interface sends and receives, at most 131072 frames. When it returns,
// recording has begun. It ends with ctx, or Close.
func (h *Host) Capture(ctx context.Context, ifname string) (*Capture, error) {
	link, err := h.nl.LinkByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("cannot capture on %q of %q: %w", ifname, h.Name, err)
	}
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL)) // in network byte order
	fd := -1
	err = h.Do(func() (err error) {
		// Protocol 0 receives nothing until bound, or the first frames would be those of other interfaces.
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		// Best effort: the default buffer merely drops sooner, and drops are counted.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
		if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Attrs().Index})
	})
	if err != nil {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
		return nil, fmt.Errorf("cannot capture on %q of %q: %w", ifname, h.Name, err)
	}
	c := &Capture{file: os.NewFile(uintptr(fd), "packet:"+ifname), done: make(chan struct{}), changed: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { _ = c.file.Close() }) // closing twice is harmless
	h.onClose(func() { _ = c.file.Close() })
	go func() {
		defer close(c.done)
		defer stop()
		c.receive()
	}()
	return c, nil
}

func (c *Capture) receive() {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return // closed already
	}
	buf, oob := make([]byte, captureBytes), make([]byte, 128)
	for {
		var n, oobn int
		var from unix.Sockaddr
		var rerr error
		err := raw.Read(func(fd uintptr) bool {
			n, oobn, _, from, rerr = unix.Recvmsg(int(fd), buf, oob, 0)
			return rerr != unix.EAGAIN
		})
		switch {
		case err != nil:
			return // closed
		case rerr == unix.EINTR:
			continue
		case rerr == unix.ENETDOWN: // the interface went down; it may come back
			continue
		case rerr != nil:
			return
		case n < 14:
			continue
		}
		f := Frame{Time: timestamp(oob[:oobn]), Data: slices.Clone(buf[:n])}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok {
			f.Outgoing = ll.Pkttype == unix.PACKET_OUTGOING
		}
		c.mu.Lock()
		if len(c.frames) < captureFrames {
			c.frames = append(c.frames, f)
		} else {
			c.dropped++
		}
		close(c.changed)
		c.changed = make(chan struct{})
		c.mu.Unlock()
	}
}

// timestamp is when the kernel saw the frame; now, if it does not say.
func timestamp(oob []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Now()
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return time.Now()
}

// Frames returns what was recorded so far.
func (c *Capture) Frames() []Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.frames)
}

// Count counts the frames that satisfy all predicates.
func (c *Capture) Count(preds ...func(Frame) bool) int {
	n := 0
frames:
	for _, f := range c.Frames() {
		for _, pred := range preds {
			if !pred(f) {
				continue frames
			}
		}
		n++
	}
	return n
}

// Wait waits for a frame that satisfies the predicate, and returns it; those recorded already count.
func (c *Capture) Wait(ctx context.Context, pred func(Frame) bool) (Frame, error) {
	for i := 0; ; {
		c.mu.Lock()
		frames, changed := c.frames, c.changed
		c.mu.Unlock()
		for ; i < len(frames); i++ {
			if pred(frames[i]) {
				return frames[i], nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Frame{}, fmt.Errorf("cannot see the frame: %w", context.Cause(ctx))
		}
	}
}

// Close ends the recording, which stays readable. The error says if frames were dropped, so that
// a test that counts does not count short.
func (c *Capture) Close() error {
	if err := c.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	<-c.done
	if c.dropped > 0 {
		return fmt.Errorf("cannot keep more than %d frames: dropped %d", captureFrames, c.dropped)
	}
	return nil
}
