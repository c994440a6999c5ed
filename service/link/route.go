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
	l, err := c.linkByName(o.Link)
	if err == nil {
		err = c.do(addressRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, l.Index, o.Prefix))
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("cannot add address %s to %q: %w", o.Prefix, o.Link, err)
	}
	return nil
}

func (c *conn) deleteAddress(o plan.DeleteAddress) error {
	l, err := c.linkByName(o.Link)
	if err == nil {
		err = c.do(addressRequest(unix.RTM_DELADDR, 0, l.Index, o.Prefix))
	}
	if err != nil && !errors.Is(err, errNoSuchLink) && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("cannot delete address %s from %q: %w", o.Prefix, o.Link, err)
	}
	return nil
}

func addressRequest(kind, flags, index int, p netip.Prefix) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, flags)
	head := nl.NewIfAddrmsg(unix.AF_INET)
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

func (c *conn) addRule(r vnet.Rule) error {
	req, err := ruleRequest(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, r)
	if err == nil {
		err = c.do(req)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("cannot %s: %w", plan.AddRule{Rule: r}, err)
	}
	return nil
}

func (c *conn) deleteRule(r vnet.Rule) error {
	req, err := ruleRequest(unix.RTM_DELRULE, 0, r)
	if err == nil {
		err = c.do(req)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cannot %s: %w", plan.DeleteRule{Rule: r}, err)
	}
	return nil
}

// ruleRequest refuses what the kernel would take for a wildcard when it deletes.
func ruleRequest(kind, flags int, r vnet.Rule) (*nl.NetlinkRequest, error) {
	switch {
	case r.Foreign:
		return nil, errors.New("it has selectors that we don't know")
	case r.Protocol == 0 || r.Priority == 0:
		return nil, errors.New("it has no protocol or no priority, so it isn't ours")
	}
	req := nl.NewNetlinkRequest(kind, flags)
	head := make(rawData, sizeofFibRuleHdr)
	head[0] = unix.AF_INET
	head[7] = unix.FR_ACT_TO_TBL
	req.AddData(head)
	req.AddData(nl.NewRtAttr(unix.FRA_PRIORITY, nl.Uint32Attr(uint32(r.Priority))))
	req.AddData(nl.NewRtAttr(unix.FRA_TABLE, nl.Uint32Attr(r.Table)))
	req.AddData(nl.NewRtAttr(unix.FRA_PROTOCOL, nl.Uint8Attr(r.Protocol)))
	if r.IIF != "" {
		req.AddData(nl.NewRtAttr(unix.FRA_IIFNAME, nl.ZeroTerminated(r.IIF)))
	}
	if r.SuppressPrefixLength >= 0 {
		req.AddData(nl.NewRtAttr(unix.FRA_SUPPRESS_PREFIXLEN, nl.Uint32Attr(uint32(r.SuppressPrefixLength))))
	}
	return req, nil
}

func (c *conn) replaceRoute(o plan.ReplaceRoute) error {
	r := o.Route
	var err error
	if r.Link == 0 && o.LinkName != "" {
		var l vnet.Link
		l, err = c.linkByName(o.LinkName)
		r.Link = l.Index
	}
	if err == nil {
		err = c.do(routeRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, r))
	}
	if err != nil {
		return fmt.Errorf("cannot %s: %w", o, err)
	}
	return nil
}

// deleteRoute deletes that very route: the kernel compares all that is given, the protocol included.
func (c *conn) deleteRoute(r vnet.Route) error {
	if r.Type != vnet.RouteUnicast {
		r.Link = 0 // nothing that the kernel would compare
	}
	err := c.do(routeRequest(unix.RTM_DELROUTE, 0, r))
	if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("cannot %s: %w", plan.DeleteRoute{Route: r}, err)
	}
	return nil
}

func routeRequest(kind, flags int, r vnet.Route) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, flags)
	head := nl.NewRtMsg()
	head.Family = unix.AF_INET
	head.Dst_len = uint8(r.Dst.Bits())
	head.Table = unix.RT_TABLE_UNSPEC // RTA_TABLE has it
	head.Protocol = r.Protocol
	head.Scope = r.Scope
	head.Type = r.Type
	if r.OnLink {
		head.Flags = unix.RTNH_F_ONLINK
	}
	req.AddData(head)
	req.AddData(nl.NewRtAttr(unix.RTA_TABLE, nl.Uint32Attr(r.Table)))
	if r.Dst.Bits() > 0 {
		req.AddData(nl.NewRtAttr(unix.RTA_DST, r.Dst.Addr().AsSlice()))
	}
	switch {
	case r.Gateway.Is4():
		req.AddData(nl.NewRtAttr(unix.RTA_GATEWAY, r.Gateway.AsSlice()))
	case r.Gateway.Is6():
		via := make([]byte, 2, 18)
		native.PutUint16(via, unix.AF_INET6)
		req.AddData(nl.NewRtAttr(unix.RTA_VIA, append(via, r.Gateway.AsSlice()...)))
	}
	if r.Link != 0 {
		req.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(r.Link))))
	}
	if r.Source.IsValid() {
		req.AddData(nl.NewRtAttr(unix.RTA_PREFSRC, r.Source.AsSlice()))
	}
	if r.Metric != 0 {
		req.AddData(nl.NewRtAttr(unix.RTA_PRIORITY, nl.Uint32Attr(r.Metric)))
	}
	return req
}
