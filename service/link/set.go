package link

import (
	"errors"
	"fmt"
	"net"

	"gangway/service/plan"
	"gangway/service/vnet"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// rtextFilterSkipStats leaves the statistics out of a link's description (linux/rtnetlink.h).
const rtextFilterSkipStats = 1 << 3

var errNoSuchLink = errors.New("no such interface")

// linkByName looks the link up in the kernel. Its alternative names don't count.
func (c *conn) linkByName(name string) (vnet.Link, error) {
	return c.getLink(0, name)
}

func (c *conn) linkByIndex(index int) (vnet.Link, error) {
	return c.getLink(index, "")
}

func (c *conn) getLink(index int, name string) (vnet.Link, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	head := nl.NewIfInfomsg(unix.AF_UNSPEC)
	head.Index = int32(index)
	req.AddData(head)
	req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(rtextFilterSkipStats)))
	if name != "" {
		req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	}
	var l vnet.Link
	err := c.exchange(req, func(_ uint16, b []byte) error {
		l, _ = parseLink(b)
		return nil
	})
	switch {
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ERANGE), err == nil && name != "" && l.Name != name:
		return l, errNoSuchLink
	}
	return l, err
}

// linkRequest changes the link with the index.
func linkRequest(index int, attributes ...nl.NetlinkRequestData) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, 0)
	head := nl.NewIfInfomsg(unix.AF_UNSPEC)
	head.Index = int32(index)
	req.AddData(head)
	for _, a := range attributes {
		req.AddData(a)
	}
	return req
}

// setUp sets or clears IFF_UP.
func (c *conn) setUp(index int, up bool) error {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, 0)
	head := nl.NewIfInfomsg(unix.AF_UNSPEC)
	head.Index = int32(index)
	head.Change = unix.IFF_UP
	if up {
		head.Flags = unix.IFF_UP
	}
	req.AddData(head)
	return c.do(req)
}

func (c *conn) setLinkUp(o plan.SetLinkUp) error {
	l, err := c.linkByName(o.Name)
	if err == nil && !l.Up {
		err = c.setUp(l.Index, true)
	}
	if err != nil {
		return fmt.Errorf("cannot bring up %q: %w", o.Name, err)
	}
	return nil
}

func (c *conn) setGroup(o plan.SetGroup) error {
	l, err := c.linkByName(o.Name)
	if err == nil && l.Group != o.Group {
		err = c.do(linkRequest(l.Index, nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(o.Group))))
	}
	if err != nil {
		return fmt.Errorf("cannot set group of %q to %#x: %w", o.Name, o.Group, err)
	}
	return nil
}

func (c *conn) setMTU(o plan.SetMTU) error {
	l, err := c.linkByName(o.Name)
	if err == nil && l.MTU != o.MTU {
		err = c.do(linkRequest(l.Index, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(o.MTU)))))
	}
	if err != nil {
		return fmt.Errorf("cannot set MTU of %q to %d: %w", o.Name, o.MTU, err)
	}
	return nil
}

func (c *conn) setMAC(o plan.SetMAC) error {
	mac, err := net.ParseMAC(o.MAC)
	if err == nil {
		var l vnet.Link
		if l, err = c.linkByName(o.Name); err == nil && l.MAC != mac.String() {
			err = c.do(linkRequest(l.Index, nl.NewRtAttr(unix.IFLA_ADDRESS, mac)))
		}
	}
	if err != nil {
		return fmt.Errorf("cannot set MAC of %q to %s: %w", o.Name, o.MAC, err)
	}
	return nil
}

func (c *conn) setMulticastSnooping(o plan.SetMulticastSnooping) error {
	l, err := c.linkByName(o.Name)
	switch {
	case err != nil:
	case l.Kind != "bridge":
		err = fmt.Errorf("it is not a bridge but %s", describe(l))
	case l.MulticastSnooping != o.On:
		value := []byte{0}
		if o.On {
			value[0] = 1
		}
		info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
		info.AddRtAttr(unix.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
		info.AddRtAttr(unix.IFLA_INFO_DATA, nil).AddRtAttr(unix.IFLA_BR_MCAST_SNOOPING, value)
		req := linkRequest(l.Index, info)
		req.Type = unix.RTM_NEWLINK // RTM_SETLINK ignores IFLA_INFO_DATA
		err = c.do(req)
	}
	if err != nil {
		return fmt.Errorf("cannot set multicast snooping of %q: %w", o.Name, err)
	}
	return nil
}

// describe says what a link is, for a person.
func describe(l vnet.Link) string {
	kind := l.Kind
	switch {
	case kind == "" && l.Loopback:
		kind = "a loopback interface"
	case kind == "":
		kind = "a hardware interface"
	default:
		kind = "a " + kind
	}
	if l.Alias != "" {
		return fmt.Sprintf("%s with the alias %q", kind, l.Alias)
	}
	return kind + " without an alias"
}
