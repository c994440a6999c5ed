package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gangway/service/plan"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// addPort leaves the interface's own settings alone (its IPv6, too: what comes in by a port
// is the bridge's), so that RemovePort has nothing to undo but that it is up.
func (c *conn) addPort(o plan.AddPort) error {
	if err := c.ensurePort(o); err != nil {
		return fmt.Errorf("cannot add port %q to %q: %w", o.Interface, o.Bridge, err)
	}
	return nil
}

func (c *conn) ensurePort(o plan.AddPort) error {
	bridge, err := c.ownBridge(o.Bridge)
	if err != nil {
		return err
	}
	l, err := c.linkByName(o.Interface)
	switch {
	case err != nil:
		return err
	case l.Index != o.Index:
		return fmt.Errorf("another interface has the name now (index %d, not %d)", l.Index, o.Index)
	case l.Master != 0 && l.Master != bridge.Index:
		master, err := c.linkByIndex(l.Master)
		if err != nil {
			return fmt.Errorf("it is a port of the interface with index %d", l.Master)
		}
		return fmt.Errorf("it is a port of %q", master.Name)
	}
	if l.Master == 0 {
		if err := c.do(linkRequest(l.Index, nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge.Index))))); err != nil {
			return err
		}
	}
	// An interface that is up already forwards from here on: what keeps guests apart comes first.
	if err := c.setPortFlag(l.Index, unix.IFLA_BRPORT_ISOLATED, o.Isolated); err != nil {
		return err
	}
	if err := c.setPortFlag(l.Index, unix.IFLA_BRPORT_MODE, false); err != nil {
		return err
	}
	if l.Up {
		return nil
	}
	return c.setUp(l.Index, true)
}

func (c *conn) removePort(o plan.RemovePort) error {
	l, err := c.linkByName(o.Interface)
	if err == nil && l.Master != 0 {
		bridge, lookup := c.linkByName(o.Bridge)
		switch {
		case errors.Is(lookup, errNoSuchLink):
		case lookup != nil:
			err = lookup
		case l.Master == bridge.Index:
			if o.Down {
				if err = c.setUp(l.Index, false); err != nil {
					break
				}
			}
			err = c.do(linkRequest(l.Index, nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(0))))
		}
	}
	if err != nil && !errors.Is(err, errNoSuchLink) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("cannot remove port %q from %q: %w", o.Interface, o.Bridge, err)
	}
	return nil
}

func (c *conn) isolatePort(o plan.IsolatePort) error {
	l, err := c.linkByName(o.Interface)
	switch {
	case err != nil:
	case l.Master == 0:
		err = errors.New("it is not a port of a bridge")
	case l.Isolated != o.On:
		err = c.setPortFlag(l.Index, unix.IFLA_BRPORT_ISOLATED, o.On)
	}
	if err != nil {
		return fmt.Errorf("cannot set isolation of port %q: %w", o.Interface, err)
	}
	return nil
}

// setPortFlag sets a flag of a bridge port.
func (c *conn) setPortFlag(index, flag int, on bool) error {
	value := []byte{0}
	if on {
		value[0] = 1
	}
	return c.portRequest(index, flag, value)
}

// portRequest changes a bridge port by the bridge's own kind of message.
func (c *conn) portRequest(index, attribute int, value []byte) error {
	port := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	port.AddRtAttr(attribute, value)
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, 0)
	head := nl.NewIfInfomsg(unix.AF_BRIDGE)
	head.Index = int32(index)
	req.AddData(head)
	req.AddData(port)
	return c.do(req)
}

// BounceTime is how long a port that is bounced stays down at least. dhcpcd 9 and
// systemd-networkd 252 behind a veth noticed each of several bounces of less than a
// millisecond; the margin is for machines whose kernel threads are late.
const BounceTime = 100 * time.Millisecond

// bounce collects the ports that one Apply took down.
type bounce struct {
	ports []bouncedPort
	last  time.Time // when the last one went down
}

type bouncedPort struct {
	name    string
	index   int
	outcome int
}

// beginBounce takes the port down, which the other end of a veth or of a cable sees as loss
// of its carrier. The other end of a tap is a program, which isn't told: it would only lose
// frames, so taps are left alone. So is what isn't a port of ours.
func (c *conn) beginBounce(o plan.BouncePort, outcome int, down *bounce) error {
	l, err := c.linkByName(o.Interface)
	if errors.Is(err, errNoSuchLink) {
		return nil // and so is the guest gone
	}
	if err == nil && l.Master == 0 {
		err = errors.New("it is not a port of a bridge")
	}
	if err != nil {
		return fmt.Errorf("cannot bounce port %q: %w", o.Interface, err)
	}
	master, err := c.linkByIndex(l.Master)
	if err == nil && !isOurs(master) {
		err = fmt.Errorf("it is a port of %q, which isn't ours", master.Name)
	}
	if err == nil && l.Kind == "tun" {
		return nil
	}
	if err == nil && l.Up {
		if err = c.setUp(l.Index, false); err == nil {
			c.announcePeer(l.Index)
		}
	}
	switch {
	case errors.Is(err, unix.ENODEV):
		return nil
	case err != nil:
		return fmt.Errorf("cannot bounce port %q: %w", o.Interface, err)
	}
	down.ports = append(down.ports, bouncedPort{name: o.Interface, index: l.Index, outcome: outcome})
	down.last = time.Now()
	return nil
}

// announcePeer makes the kernel announce the loss of the carrier at the other end of a veth
// now. It does so at once by itself, except for pairs that happen to have the same index
// on both sides, whose turn comes once a second for all links together (linkwatch_urgent_event):
// too late, as the carrier is back by then. Looking at a link brings its turn forward
// (linkwatch_sync_dev in rtnl_getlink, since Linux 6.9); so this need not succeed.
func (c *conn) announcePeer(index int) {
	p, err := c.peer(index)
	if err != nil || p.index == 0 || p.namespace < 0 {
		return
	}
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	head := nl.NewIfInfomsg(unix.AF_UNSPEC)
	head.Index = int32(p.index)
	req.AddData(head)
	req.AddData(nl.NewRtAttr(unix.IFLA_TARGET_NETNSID, nl.Uint32Attr(uint32(p.namespace))))
	_ = c.exchange(req, func(uint16, []byte) error { return nil })
}

// endBounce brings the ports up again, at once when ctx ends. A process that is killed before
// leaves ports of ours down, which the next pass sees (vnet.Link.Up) and mends.
func (k *Kernel) endBounce(ctx context.Context, down bounce, outcomes []plan.Outcome) {
	if len(down.ports) == 0 {
		return
	}
	timer := time.NewTimer(time.Until(down.last.Add(BounceTime)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	for _, p := range down.ports {
		c, err := k.connect()
		if err == nil {
			err = c.setUp(p.index, true)
		}
		if err != nil && !errors.Is(err, unix.ENODEV) {
			outcomes[p.outcome].Err = fmt.Errorf("cannot bring up %q again: %w", p.name, err)
		}
	}
}
