package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Guest stands for a virtual machine or a container: a namespace whose eth0 is a cable to the laptop.
type Guest struct {
	*Machine
	// Port is the laptop's end of the cable. It belongs to no bridge and is down until AttachTo, or
	// gangwayd, makes it part of one.
	Port string
}

// AddGuest adds a guest; its name is 1 to 10 letters or digits, unique in the lab.
func (l *Lab) AddGuest(ctx context.Context, name string) (*Guest, error) {
	return l.AddGuestWith(ctx, name, MachineOptions{})
}

// AddGuestWith is AddGuest for a guest that is not the ordinary one.
func (l *Lab) AddGuestWith(ctx context.Context, name string, o MachineOptions) (*Guest, error) {
	if name == "" || len(name) > 10 || strings.ContainsFunc(name, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }) {
		return nil, fmt.Errorf("cannot add guest %q: want a name of 1 to 10 letters or digits", name)
	}
	l.mu.Lock()
	if _, taken := l.guests[name]; taken {
		l.mu.Unlock()
		return nil, fmt.Errorf("cannot add guest %q: %w", name, fs.ErrExist)
	}
	g := &Guest{Port: "port-" + name}
	l.guests[name] = g
	own := mac(3, len(l.guests))
	l.mu.Unlock()
	var err error
	if g.Machine, err = l.newMachine("guest-"+name, "guest/"+name, own, o); err == nil {
		err = g.wire(l.Laptop, g.Port, 0, o)
	}
	if err = errors.Join(err, ctx.Err()); err != nil {
		return nil, fmt.Errorf("cannot add guest %q: %w", name, err)
	}
	return g, nil
}

// AttachTo makes the guest's port part of a bridge on the laptop and switches it on: the guest gains carrier.
func (g *Guest) AttachTo(bridge string) error {
	laptop := g.lab.Laptop
	br, err := laptop.nl.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("cannot find bridge %q: %w", bridge, err)
	}
	if err := laptop.editLink(g.Port, func(port netlink.Link) error { return laptop.nl.LinkSetMaster(port, br) }); err != nil {
		return err
	}
	return laptop.setUp(g.Port)
}

// SetCarrier switches the laptop's end of the guest's cable on or off.
func (g *Guest) SetCarrier(on bool) error {
	edit := g.lab.Laptop.nl.LinkSetDown
	if on {
		edit = g.lab.Laptop.nl.LinkSetUp
	}
	return g.lab.Laptop.editLink(g.Port, edit)
}

// WaitUp waits until both ends of the guest's cable carry packets, which they drop before.
func (g *Guest) WaitUp(ctx context.Context) error {
	return parallel(
		func() error { return g.lab.Laptop.waitOperUp(ctx, g.Port) },
		func() error { return g.waitOperUp(ctx, GuestInterface) })
}

// Remove ends what runs on the guest and deletes it; its port disappears from the laptop.
func (g *Guest) Remove(ctx context.Context) error {
	if err := g.dhcp.stop(ctx, unix.SIGKILL); err != nil {
		return err
	}
	if err := killAll([]string{g.Namespace}, g.dir); err != nil {
		return err
	}
	if err := g.lab.Laptop.editLink(g.Port, g.lab.Laptop.nl.LinkDel); err != nil && !errors.As(err, new(netlink.LinkNotFoundError)) {
		return err
	}
	return g.lab.dropHost(g.Host) // the name stays taken, so that no two guests share a MAC
}
