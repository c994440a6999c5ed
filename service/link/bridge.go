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

// maxBridgeMTU is what the bridge driver takes (br_netdev_ops, ETH_MAX_MTU).
const maxBridgeMTU = 65535

// createBridge makes the bridge in three steps, of which the alias is the last: a bridge
// that has our alias is complete, whenever we were killed. What was left without the
// alias is known by its group and MAC address, and completed by the next attempt.
func (c *conn) createBridge(o plan.CreateBridge) error {
	err := c.ensureBridge(o)
	if err != nil {
		return fmt.Errorf("cannot create bridge %q: %w", o.Name, err)
	}
	return nil
}

func (c *conn) ensureBridge(o plan.CreateBridge) error {
	mac, err := net.ParseMAC(o.MAC)
	if err != nil {
		return err
	}
	l, err := c.linkByName(o.Name)
	switch {
	case errors.Is(err, errNoSuchLink):
		if err := c.newBridge(o, mac); err != nil {
			return err
		}
		if l, err = c.linkByName(o.Name); err != nil {
			return err
		}
	case err != nil:
		return err
	case l.Kind == "bridge" && l.Alias == o.Alias:
	case l.Kind == "bridge" && l.Alias == "" && !l.Up && l.MAC == mac.String() && l.Group&plan.GroupMask == plan.GroupBridge:
	default:
		return fmt.Errorf("the name is taken by an interface that is not ours: %s", describe(l))
	}
	if err := quietIPv6(o.Name, bridgeIPv6); err != nil {
		return err
	}
	req := linkRequest(l.Index,
		nl.NewRtAttr(unix.IFLA_ADDRESS, mac),
		nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(o.MTU))),
		nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(o.Group)),
		bridgeSettings())
	req.Type = unix.RTM_NEWLINK
	if err := c.do(req); err != nil {
		return err
	}
	return c.do(linkRequest(l.Index, nl.NewRtAttr(unix.IFLA_IFALIAS, nl.NonZeroTerminated(o.Alias))))
}

// newBridge creates it, down. The MTU is one that it won't keep: only a change makes the
// driver remember that it was chosen (BROPT_MTU_SET_BY_USER), without which each new port
// may lower it.
func (c *conn) newBridge(o plan.CreateBridge, mac net.HardwareAddr) error {
	passing := o.MTU + 1
	if passing > maxBridgeMTU {
		passing = maxBridgeMTU - 1
	}
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(o.Name)))
	req.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, mac))
	req.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(passing))))
	req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(o.Group)))
	req.AddData(bridgeSettings())
	return c.do(req)
}

// bridgeSettings: no spanning tree and no delay, so that a port forwards at once; no
// multicast snooping, which eats neighbour discovery where no querier is (RFC 4541 3).
func bridgeSettings() *nl.RtAttr {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(unix.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	data := info.AddRtAttr(unix.IFLA_INFO_DATA, nil)
	data.AddRtAttr(unix.IFLA_BR_STP_STATE, nl.Uint32Attr(0))
	data.AddRtAttr(unix.IFLA_BR_FORWARD_DELAY, nl.Uint32Attr(0))
	data.AddRtAttr(unix.IFLA_BR_MCAST_SNOOPING, nl.Uint8Attr(0))
	return info
}

func (c *conn) deleteBridge(o plan.DeleteBridge) error {
	l, err := c.linkByName(o.Name)
	if err == nil && l.Kind == "bridge" && l.Alias == o.Alias {
		req := linkRequest(l.Index)
		req.Type = unix.RTM_DELLINK
		err = c.do(req)
	}
	if err != nil && !errors.Is(err, errNoSuchLink) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("cannot delete bridge %q: %w", o.Name, err)
	}
	return nil
}

// ownBridge finds a bridge of ours.
func (c *conn) ownBridge(name string) (vnet.Link, error) {
	l, err := c.linkByName(name)
	switch {
	case err != nil:
		return l, fmt.Errorf("bridge %q: %w", name, err)
	case !isOurs(l):
		return l, fmt.Errorf("%q is not a bridge of ours but %s", name, describe(l))
	}
	return l, nil
}

func isOurs(l vnet.Link) bool {
	return l.Kind == "bridge" && strings.HasPrefix(l.Alias, plan.AliasPrefix)
}
