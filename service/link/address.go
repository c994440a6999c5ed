package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"gangway/service/plan"
	"gangway/service/vnet"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func (c *conn) addAddress(o plan.AddAddress) error {
	l, err := c.addressed(o.Link, o.Prefix)
	if err == nil {
		err = c.do(addressRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, l.Index, o.Prefix))
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("cannot add address %s to %q: %w", o.Prefix, o.Link, err)
	}
	return nil
}

func (c *conn) deleteAddress(o plan.DeleteAddress) error {
	l, err := c.addressed(o.Link, o.Prefix)
	if err == nil {
		err = c.do(addressRequest(unix.RTM_DELADDR, 0, l.Index, o.Prefix))
	}
	if err != nil && !isAbsent(err) && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("cannot delete address %s from %q: %w", o.Prefix, o.Link, err)
	}
	return nil
}

// addressed is the link that the address is for. An IPv6 address of the host's own on a link that
// isn't ours is never our affair.
func (c *conn) addressed(name string, p netip.Prefix) (vnet.Link, error) {
	l, err := c.linkByName(name)
	if err == nil && p.Addr().Is6() && !isOurs(l) {
		err = fmt.Errorf("it is not a bridge of ours but %s", describe(l))
	}
	return l, err
}

// addressRequest has IPv6's duplicate address detection left out (IFA_F_NODAD): the address is usable at
// once, and guests can't take it, as it is the plan's to see that none has it.
func addressRequest(kind, flags, index int, p netip.Prefix) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, flags)
	head := nl.NewIfAddrmsg(unix.AF_INET)
	if p.Addr().Is6() {
		head.Family = unix.AF_INET6
		head.Flags = unix.IFA_F_NODAD
	}
	head.Index = uint32(index)
	head.Prefixlen = uint8(p.Bits())
	req.AddData(head)
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, p.Addr().AsSlice()))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, p.Addr().AsSlice()))
	if b, ok := broadcast(p); ok && kind == unix.RTM_NEWADDR {
		req.AddData(nl.NewRtAttr(unix.IFA_BROADCAST, b.AsSlice()))
	}
	return req
}

// broadcast is the subnet's last address (RFC 919 7); a /31 (RFC 3021) and a /32 have none.
func broadcast(p netip.Prefix) (netip.Addr, bool) {
	if !p.Addr().Is4() || p.Bits() > 30 {
		return netip.Addr{}, false
	}
	a := p.Addr().As4()
	n := binary.BigEndian.Uint32(a[:]) | (1<<(32-p.Bits()) - 1)
	binary.BigEndian.PutUint32(a[:], n)
	return netip.AddrFrom4(a), true
}
