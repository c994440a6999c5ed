package link

import (
	"errors"
	"fmt"

	"gangway/service/plan"
	"gangway/service/vnet"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// joinBridge makes an end of a pair a port. The bridge may be anybody's: the port is ours.
func (c *conn) joinBridge(o plan.JoinBridge) error {
	if err := c.ensureJoined(o); err != nil {
		return fmt.Errorf("cannot join %q to %q: %w", o.Link, o.Bridge, err)
	}
	return nil
}

// ensureJoined lets no frame through a port that is to be isolated and isn't yet. The flag is
// the port's: it can't be set before the link is one, and is lost when it moves. So the inner
// end is down meanwhile, whichever of the two it is that joins: a veth passes nothing, either
// way, to or from an end that is down. The outer end would not do, for the gate brings it up
// as soon as it sees it in a bridge. Killed in between, we leave the inner end down, which the
// next pass sees.
func (c *conn) ensureJoined(o plan.JoinBridge) error {
	l, err := c.ownEnd(o.Link)
	if err != nil {
		return err
	}
	bridge, err := c.linkByName(o.Bridge)
	switch {
	case err != nil:
		return fmt.Errorf("%q: %w", o.Bridge, err)
	case bridge.Kind != "bridge":
		return fmt.Errorf("%q is not a bridge but %s", o.Bridge, describe(bridge))
	case l.Master == bridge.Index && l.Isolated == o.Isolated:
		return nil
	case l.Master == bridge.Index:
		return c.setPortFlag(l.Index, unix.IFLA_BRPORT_ISOLATED, o.Isolated)
	}
	inner, resize := l, false
	if _, outer := plan.OuterOf(l); outer {
		resize = l.MTU != bridge.MTU
		if inner, err = c.otherEnd(l); err != nil {
			return err
		}
	}
	shut := inner.Up && (o.Isolated || resize)
	if shut {
		if err := c.setUp(inner.Index, false); err != nil {
			return err
		}
	}
	if resize {
		if err := c.takeMTU(l, bridge); err != nil {
			return err
		}
	}
	if err := c.do(linkRequest(l.Index, nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge.Index))))); err != nil {
		return err
	}
	if o.Isolated {
		if err := c.setPortFlag(l.Index, unix.IFLA_BRPORT_ISOLATED, true); err != nil {
			return err
		}
	}
	if shut {
		return c.setUp(inner.Index, true)
	}
	return nil
}

// takeMTU gives the end the MTU of the bridge that it is about to join: a bridge whose MTU nobody
// chose takes the least of its ports' (br_mtu_auto_adjust), and neither that bridge nor the one
// before is to change because of us.
func (c *conn) takeMTU(l, bridge vnet.Link) error {
	if l.Master != 0 {
		if err := c.do(linkRequest(l.Index, nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(0)))); err != nil {
			return err
		}
	}
	return c.do(linkRequest(l.Index, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(bridge.MTU)))))
}

// leaveBridge takes the end down, then out. The gate may bring it up in between, when it is in
// a bridge for the last time: so it is looked at again.
func (c *conn) leaveBridge(o plan.LeaveBridge) error {
	l, err := c.ownEnd(o.Link)
	if err == nil && l.Up {
		err = c.setUp(l.Index, false)
	}
	if err == nil && l.Master != 0 {
		if err = c.do(linkRequest(l.Index, nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(0)))); err == nil {
			l, err = c.ownEnd(o.Link)
		}
		if err == nil && l.Up {
			err = c.setUp(l.Index, false)
		}
	}
	if err != nil && !isAbsent(err) {
		return fmt.Errorf("cannot take %q out of its bridge: %w", o.Link, err)
	}
	return nil
}

// flushPort forgets what was learned behind an end of a pair or a port of a bridge of ours. What
// isn't a port has nothing to forget.
func (c *conn) flushPort(o plan.FlushPort) error {
	l, err := c.linkByName(o.Link)
	if err == nil && l.Master != 0 {
		if !isPairEnd(l) {
			err = c.checkOurPort(l)
		}
		if err == nil {
			err = c.portRequest(l.Index, unix.IFLA_BRPORT_FLUSH, nil)
		}
	}
	if err != nil && !isAbsent(err) {
		return fmt.Errorf("cannot forget who is behind %q: %w", o.Link, err)
	}
	return nil
}

func (c *conn) checkOurPort(l vnet.Link) error {
	master, err := c.linkByIndex(l.Master)
	if err == nil && !isOurs(master) {
		err = fmt.Errorf("it is neither ours nor a port of a bridge of ours, but of %q", master.Name)
	}
	return err
}

func (c *conn) setLinkDown(o plan.SetLinkDown) error {
	l, err := c.linkByName(o.Name)
	switch {
	case err != nil:
	case !isOurs(l) && !isPairEnd(l):
		err = fmt.Errorf("it is not ours but %s", describe(l))
	case l.Up:
		err = c.setUp(l.Index, false)
	}
	if err != nil && !isAbsent(err) {
		return fmt.Errorf("cannot take down %q: %w", o.Name, err)
	}
	return nil
}

// isAbsent tells that the link is gone, be it since it was looked at.
func isAbsent(err error) bool {
	return errors.Is(err, errNoSuchLink) || errors.Is(err, unix.ENODEV)
}

// ownEnd finds an end of a pair of ours.
func (c *conn) ownEnd(name string) (vnet.Link, error) {
	l, err := c.linkByName(name)
	if err == nil && !isPairEnd(l) {
		err = fmt.Errorf("%q is not an end of an IPv6-only link of ours but %s", name, describe(l))
	}
	return l, err
}

func (c *conn) otherEnd(l vnet.Link) (vnet.Link, error) {
	p, err := c.peer(l.Index)
	if err == nil && !p.here {
		err = errNoSuchLink
	}
	var other vnet.Link
	if err == nil {
		other, err = c.linkByIndex(p.index)
	}
	if err != nil {
		return other, fmt.Errorf("the other end: %w", err)
	}
	return other, nil
}

// peer is the other end of a veth.
type peer struct {
	index int
	here  bool // in this network namespace; else it is in that which this one knows by the number namespace
	// namespace is negative if it has no number here.
	namespace int
}

// peer finds the other end of a veth.
func (c *conn) peer(index int) (peer, error) {
	p := peer{here: true, namespace: -1}
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	head := nl.NewIfInfomsg(unix.AF_UNSPEC)
	head.Index = int32(index)
	req.AddData(head)
	err := c.exchange(req, func(_ uint16, b []byte) error {
		for a := range attributes(b[min(unix.SizeofIfInfomsg, len(b)):]) {
			switch a.kind {
			case unix.IFLA_LINK:
				p.index = int(a.u32())
			case unix.IFLA_LINK_NETNSID:
				p.here, p.namespace = false, int(int32(a.u32()))
			}
		}
		return nil
	})
	return p, err
}
