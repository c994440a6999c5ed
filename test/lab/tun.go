package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// tunnel is a line without a link layer: a TUN device on each of two hosts, and what the kernel of one sends, that of the other receives.
// It lasts until it is closed, as does either host.
type tunnel struct {
	ends   [2]*os.File
	cut    atomic.Bool // without carrier
	copies sync.WaitGroup
}

// newTunnel makes the devices, which are down and have carrier.
func newTunnel(a *Host, aName string, b *Host, bName string) (*tunnel, error) {
	t := &tunnel{}
	for i, end := range []struct {
		host *Host
		name string
	}{{a, aName}, {b, bName}} {
		var err error
		if t.ends[i], err = openTUN(end.host, end.name); err != nil {
			t.close()
			return nil, fmt.Errorf("cannot add tunnel device %q to %q: %w", end.name, end.host.Name, err)
		}
	}
	t.copies.Go(func() { t.pump(t.ends[1], t.ends[0]) })
	t.copies.Go(func() { t.pump(t.ends[0], t.ends[1]) })
	a.onClose(t.close)
	b.onClose(t.close)
	return t, nil
}

// openTUN makes a TUN device that lasts as long as the file. Packets carry a header of segmentation and checksum offload (struct
// virtio_net_hdr), so that the kernel needn't cut and sum up what the other end puts together again.
func openTUN(h *Host, name string) (*os.File, error) {
	fd := -1
	err := h.Do(func() (err error) { // a device belongs to the namespace in which the file was opened
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return err
		}
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_TUN_EXCL)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			return err
		}
		return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6)
	})
	if err != nil {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
		return nil, err
	}
	return os.NewFile(uintptr(fd), "tun:"+name), nil
}

// pump copies packets until one end is closed, or its device deleted. What the receiver's kernel refuses, as it does while the device
// is down, is lost.
func (t *tunnel) pump(to, from *os.File) {
	buf := make([]byte, longestFrame+64) // and the offload header
	for {
		n, err := from.Read(buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return
		case t.cut.Load():
			continue
		}
		if _, err := to.Write(buf[:n]); errors.Is(err, fs.ErrClosed) {
			return
		}
	}
}

// setCarrier gives both ends carrier, or takes it away. What is underway by then is lost: the kernel would go on sending for up to a second.
func (t *tunnel) setCarrier(on bool) error {
	t.cut.Store(!on)
	value := 0
	if on {
		value = 1
	}
	for _, end := range t.ends {
		raw, err := end.SyscallConn()
		if err != nil {
			return err
		}
		cerr := raw.Control(func(fd uintptr) { err = unix.IoctlSetPointerInt(int(fd), unix.TUNSETCARRIER, value) })
		if err := errors.Join(cerr, err); err != nil {
			return fmt.Errorf("cannot set carrier of %q: %w", end.Name(), err)
		}
	}
	return nil
}

// close deletes both devices; closing again is harmless.
func (t *tunnel) close() {
	for _, end := range t.ends {
		if end != nil {
			_ = end.Close() // the second time, it is closed already
		}
	}
	t.copies.Wait()
}
