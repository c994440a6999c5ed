package lab

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Send puts Ethernet frames on an interface as they are, in order: nothing checks their addresses, and no packet filter of the
// host sees them.
func (h *Host) Send(ifname string, frames ...[]byte) error {
	link, err := h.nl.LinkByName(ifname)
	if err == nil {
		err = h.Do(func() error {
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			for _, f := range frames {
				if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("cannot send on %q of %q: %w", ifname, h.Name, err)
	}
	return nil
}
