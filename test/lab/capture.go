package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	captureFrames = 1 << 17  // kept at most
	captureBytes  = 256      // kept of each, but for what tests look into
	longestFrame  = 64 << 10 // that a cable carries, segmentation offload included
)

// Capture records the frames of an interface until Close.
type Capture struct {
	file *os.File
	done chan struct{}

	mu      sync.Mutex
	frames  []Frame
	dropped int
	lost    int // by the kernel, before we saw them
	changed chan struct{}
}

// Capture starts recording what an interface sends and receives, at most 131072 frames. When it returns,
// recording has begun. It ends with ctx, or Close. Packets of an interface without a link layer, as a tunnel, get an Ethernet header whose
// addresses are zero.
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
		if err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
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
	buf, oob := make([]byte, longestFrame), make([]byte, 128)
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
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		if !ok || n < etherSize && ll.Hatype != unix.ARPHRD_NONE {
			continue
		}
		f := newFrame(onEthernet(buf[:n], ll), oob[:oobn])
		f.Outgoing = ll.Pkttype == unix.PACKET_OUTGOING
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

// onEthernet gives a packet of an interface without a link layer an Ethernet header, of addresses that are zero.
func onEthernet(b []byte, from *unix.SockaddrLinklayer) []byte {
	if from.Hatype != unix.ARPHRD_NONE {
		return b
	}
	header := make([]byte, etherSize, etherSize+len(b))
	binary.NativeEndian.PutUint16(header[12:], from.Protocol) // in network byte order already
	return append(header, b...)
}

// newFrame keeps what is to be kept of a frame, with the VLAN tag that the kernel took out of it.
func newFrame(b, oob []byte) Frame {
	f := Frame{Time: time.Now(), Length: len(b)}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		messages = nil // ours to make out: it is merely the time that is a little late
	}
	var tag []byte
	for _, m := range messages {
		switch d := m.Data; {
		case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(d) >= 16:
			f.Time = time.Unix(int64(binary.NativeEndian.Uint64(d)), int64(binary.NativeEndian.Uint64(d[8:])))
		case m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(d) >= 20: // struct tpacket_auxdata
			if binary.NativeEndian.Uint32(d)&unix.TP_STATUS_VLAN_VALID != 0 {
				tag = binary.BigEndian.AppendUint16(nil, binary.NativeEndian.Uint16(d[18:]))
				tag = binary.BigEndian.AppendUint16(tag, binary.NativeEndian.Uint16(d[16:]))
			}
		}
	}
	keep := len(b)
	whole := Frame{Data: b}
	if p := whole.Protocol(); whole.EtherType() != EtherIPv6 || p == protoTCP || p == protoUDP {
		keep = min(keep, captureBytes)
	}
	f.Length += len(tag)
	f.Data = slices.Concat(b[:12], tag, b[12:keep])
	return f
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
	if raw, err := c.file.SyscallConn(); err == nil {
		// Closed already by the context: then nobody knows.
		_ = raw.Control(func(fd uintptr) {
			if stats, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
				c.lost += int(stats.Drops)
			}
		})
	}
	if err := c.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	<-c.done
	if c.dropped > 0 {
		return fmt.Errorf("cannot keep more than %d frames: dropped %d", captureFrames, c.dropped)
	}
	if c.lost > 0 {
		return fmt.Errorf("cannot capture as fast as frames come: lost %d", c.lost)
	}
	return nil
}
