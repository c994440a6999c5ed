package lab

import (
	"context"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
)

// Cable is a line between the laptop and a site's switch, or, at a WWAN, its router.
type Cable struct {
	Options UplinkOptions
	Site    *Site
	// MAC is the address of the laptop's interface.
	MAC net.HardwareAddr
	// Port is the switch's end, on Site.Router.
	Port string

	line *tunnel // of a WWAN
}

func newCables(s *Site) (cables []*Cable) {
	for i, u := range s.Options.uplinks() {
		c := &Cable{Options: u, Site: s, MAC: mac(2, s.index), Port: fmt.Sprintf("port%d", i)}
		if i > 0 {
			c.MAC = mac(4, s.index<<8|i)
		}
		cables = append(cables, c)
	}
	return cables
}

// Cable returns the cable of the laptop's interface of that name, nil if there is none.
func (l *Lab) Cable(uplink string) *Cable {
	for _, s := range l.Sites {
		for _, c := range s.Cables {
			if c.Options.Name == uplink {
				return c
			}
		}
	}
	return nil
}

// Unplug cuts the cable at the switch: the laptop's interface loses carrier.
func (c *Cable) Unplug() error {
	if c.line != nil {
		return c.line.setCarrier(false)
	}
	return c.Site.Router.editLink(c.Port, c.Site.Router.nl.LinkSetDown)
}

// Plug connects the cable again.
func (c *Cable) Plug() error {
	if c.line != nil {
		return c.line.setCarrier(true)
	}
	return c.Site.Router.setUp(c.Port)
}

// Capture records what passes the cable, at the switch's end: what the laptop sent is incoming.
func (c *Cable) Capture(ctx context.Context) (*Capture, error) {
	return c.Site.Router.Capture(ctx, c.Port)
}

// lay makes the cable, still unplugged at the switch's end.
func (c *Cable) lay(bridge int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = c.Port, bridge
	laptop := c.Site.lab.Laptop
	if err := c.Site.Router.nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: c.Options.Name, PeerNamespace: netlink.NsFd(int(laptop.net.Fd())), PeerHardwareAddr: c.MAC}); err != nil {
		return fmt.Errorf("cannot add uplink %q: %w", c.Options.Name, err)
	}
	return nil
}

// start plugs the cable in and waits for its carrier.
func (c *Cable) start(ctx context.Context) error {
	if c.Options.Unplugged {
		return nil
	}
	if err := c.Plug(); err != nil {
		return err
	}
	laptop := c.Site.lab.Laptop
	if err := laptop.setUp(c.Options.Name); err != nil {
		return err
	}
	// Both ends drop what is sent before the kernel's link watch has noticed the carrier.
	return parallel(
		func() error { return c.Site.Router.waitOperUp(ctx, c.Port) },
		func() error { return laptop.waitOperUp(ctx, c.Options.Name) })
}
