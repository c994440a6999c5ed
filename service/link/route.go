package link

import (
	"errors"
	"fmt"
	"slices"

	"gangway/service/plan"
	"gangway/service/vnet"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// userMetric is what the kernel makes of an IPv6 route's metric of 0 (IP6_RT_PRIO_USER), and what it
// calls it from then on.
const userMetric = 1024

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
	var err error
	exact := true
	switch {
	case r.Dst.Addr().Is4() && r.Type != vnet.RouteUnicast:
		r.Link = 0 // nothing that the kernel would compare
	case r.Dst.Addr().Is6():
		if r, err = whole(r); err == nil {
			exact, err = c.isExact(r)
		}
	}
	if err == nil && exact {
		err = c.do(routeRequest(unix.RTM_DELROUTE, 0, r))
	}
	if err != nil && !errors.Is(err, unix.ESRCH) && !isAbsent(err) && !isUnsupported(err) {
		return fmt.Errorf("cannot %s: %w", plan.DeleteRoute{Route: r}, err)
	}
	return nil
}

// whole says the metric and the link, both of which would be wildcards to the kernel when it deletes an
// IPv6 route and isn't told. Its reject routes have a link, too, the loopback interface, which no route
// of ours has otherwise.
func whole(r vnet.Route) (vnet.Route, error) {
	if r.Metric == 0 {
		r.Metric = userMetric
	}
	if r.Type != vnet.RouteUnicast {
		r.Link = loopbackIndex
	}
	if r.Protocol == 0 || r.Link == 0 {
		return r, errors.New("it has no protocol or no link, so it isn't ours")
	}
	return r, nil
}

// loopbackIndex is lo's in every network namespace (LOOPBACK_IFINDEX in net/flow.h).
const loopbackIndex = 1

// isExact tells whether there is an IPv6 route to delete with the same next hop: a route without a
// gateway would be a wildcard for those with one. No host's has one, and they are many.
func (c *conn) isExact(r vnet.Route) (bool, error) {
	if r.Gateway.IsValid() || r.Dst.IsSingleIP() || r.Type != vnet.RouteUnicast {
		return true, nil
	}
	var have []vnet.Route
	req := routes6Request(r.Protocol, r.Table)
	err := c.dump(req, func() { have = have[:0] }, func(_ uint16, b []byte) error {
		have = parseRoute(b, unix.AF_INET6, have)
		return nil
	})
	if errors.Is(err, unix.ENOENT) { // nor such a table
		return false, nil
	}
	return slices.ContainsFunc(have, func(h vnet.Route) bool {
		return h.Dst == r.Dst && h.Metric == r.Metric && h.Link == r.Link && !h.Gateway.IsValid()
	}), err
}

func routeRequest(kind, flags int, r vnet.Route) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, flags)
	head := nl.NewRtMsg()
	head.Family = unix.AF_INET
	if r.Dst.Addr().Is6() {
		head.Family = unix.AF_INET6
	}
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
	case !r.Gateway.IsValid():
	case r.Gateway.Is4() == r.Dst.Addr().Is4():
		req.AddData(nl.NewRtAttr(unix.RTA_GATEWAY, r.Gateway.AsSlice()))
	default: // RFC 8950; the other way round, the kernel refuses it
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
