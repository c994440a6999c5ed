package link

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"gangway/service/plan"
	"gangway/service/vnet"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// createPair makes both ends in one request and gives them their aliases last, the outer's
// before the inner's: a pair whose inner end has its alias is complete, whenever we were
// killed. What was left without is known by group and name, and completed by the next attempt.
func (c *conn) createPair(o plan.CreatePair) error {
	if err := c.ensurePair(o); err != nil {
		return fmt.Errorf("cannot create IPv6-only link %q to %q: %w", o.Inner, o.Outer, err)
	}
	return nil
}

// pairEnd is what one end of a pair is to be.
type pairEnd struct {
	name, alias string
	mac         net.HardwareAddr
}

func (c *conn) ensurePair(o plan.CreatePair) error {
	innerMAC, err := net.ParseMAC(o.InnerMAC)
	if err != nil {
		return err
	}
	outerMAC, err := net.ParseMAC(o.OuterMAC)
	if err != nil {
		return err
	}
	inner := pairEnd{name: o.Inner, alias: o.InnerAlias, mac: innerMAC}
	outer := pairEnd{name: o.Outer, alias: o.OuterAlias, mac: outerMAC}
	if err := c.ensureEnds(inner, outer, o.MTU); err != nil {
		return err
	}
	for _, e := range []pairEnd{outer, inner} {
		l, err := c.linkByName(e.name)
		if err == nil {
			err = c.configureEnd(l, e, o.MTU)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", e.name, err)
		}
	}
	return nil
}

// ensureEnds sees to it that both exist and are each other's ends. Halves of ours that don't
// belong together are deleted: one whose other end was moved to another namespace, for instance.
func (c *conn) ensureEnds(inner, outer pairEnd, mtu int) error {
	var have []vnet.Link
	for _, e := range []pairEnd{inner, outer} {
		l, err := c.linkByName(e.name)
		switch {
		case errors.Is(err, errNoSuchLink):
		case err != nil:
			return err
		case !isEnd(l, e.alias):
			return fmt.Errorf("the name %q is taken by an interface that is not ours: %s", e.name, describe(l))
		default:
			have = append(have, l)
		}
	}
	if len(have) == 2 {
		peer, err := c.peer(have[0].Index)
		if err != nil {
			return err
		}
		if peer.here && peer.index == have[1].Index {
			return nil
		}
	}
	for _, l := range have {
		if err := c.deleteLink(l.Index); err != nil {
			return err
		}
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(unix.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	other := info.AddRtAttr(unix.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	other.AddChild(nl.NewIfInfomsg(unix.AF_UNSPEC))
	for _, a := range outer.attributes(mtu) {
		other.AddChild(a)
	}
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	for _, a := range inner.attributes(mtu) {
		req.AddData(a)
	}
	req.AddData(info)
	return c.do(req)
}

// attributes are what an end is born with.
func (e pairEnd) attributes(mtu int) []*nl.RtAttr {
	return []*nl.RtAttr{
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(e.name)),
		nl.NewRtAttr(unix.IFLA_ADDRESS, e.mac),
		nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu))),
		nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(plan.GroupPair)),
	}
}

// configureEnd brings what exists to what it is to be, the alias last. What fits is left alone:
// the end may be in use.
func (c *conn) configureEnd(l vnet.Link, e pairEnd, mtu int) error {
	if err := quietIPv6(l.Name, endIPv6); err != nil {
		return err
	}
	if l.MAC != e.mac.String() || l.MTU != mtu || l.Group != plan.GroupPair {
		var changes []nl.NetlinkRequestData
		for _, a := range e.attributes(mtu)[1:] { // all but the name
			changes = append(changes, a)
		}
		if err := c.do(linkRequest(l.Index, changes...)); err != nil {
			return err
		}
	}
	if l.Alias == e.alias {
		return nil
	}
	return c.do(linkRequest(l.Index, nl.NewRtAttr(unix.IFLA_IFALIAS, nl.NonZeroTerminated(e.alias))))
}

// deletePair deletes both ends, as the kernel does with either.
func (c *conn) deletePair(o plan.DeletePair) error {
	l, err := c.linkByName(o.Inner)
	switch {
	case errors.Is(err, errNoSuchLink):
		return nil
	case err == nil && !isEnd(l, o.Alias):
		err = fmt.Errorf("it is not ours but %s", describe(l))
	case err == nil:
		err = c.deleteLink(l.Index)
	}
	if err != nil {
		return fmt.Errorf("cannot delete IPv6-only link %q: %w", o.Inner, err)
	}
	return nil
}

// deleteLink succeeds when the link is gone already.
func (c *conn) deleteLink(index int) error {
	req := linkRequest(index)
	req.Type = unix.RTM_DELLINK
	if err := c.do(req); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// isEnd tells whether the link is the end of a pair that the alias is for, be it half made.
func isEnd(l vnet.Link, alias string) bool {
	return l.Kind == "veth" && alias != "" && l.Alias == alias || isHalfMade(l)
}

// isHalfMade tells whether the link is an end that we had no time to give an alias.
func isHalfMade(l vnet.Link) bool {
	return l.Kind == "veth" && l.Alias == "" && l.Group&plan.GroupMask == plan.GroupPair && strings.HasPrefix(l.Name, plan.PairPrefix)
}

// isPairEnd tells whether the link is an end of any pair of ours.
func isPairEnd(l vnet.Link) bool {
	_, inner := plan.InnerOf(l)
	_, outer := plan.OuterOf(l)
	return inner || outer || isHalfMade(l)
}
