package link

import (
	"errors"

	"gangway/service/plan"
	"gangway/service/vnet"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// isUnsupported tells that a request was about a family which the kernel doesn't have, as when it was
// booted with ipv6.disable=1.
func isUnsupported(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}

// steps6 are the dumps of IPv6, which is what family is but for a test that wants one which the kernel
// doesn't have. Routes are filtered by the kernel: the local table has three for each address.
func steps6(family uint8, have *vnet.Kernel, conf *[]netconf) []step {
	rest := 0 // of Routes6, where those begin that the main table doesn't have
	list := []step{
		{noun: "IPv6 routes", req: routes6Request(unix.RTPROT_UNSPEC, unix.RT_TABLE_MAIN),
			zero: func() { have.Routes6, rest = have.Routes6[:0], 0 },
			each: func(b []byte) { have.Routes6 = appendRoute6(b, true, have.Routes6); rest = len(have.Routes6) }},
		{noun: "IPv6 routes of ours", req: routes6Request(plan.Protocol, unix.RT_TABLE_UNSPEC),
			zero: func() { have.Routes6 = have.Routes6[:rest] },
			each: func(b []byte) { have.Routes6 = appendRoute6(b, false, have.Routes6) }},
		rulesStep("IPv6 rules", family, &have.Rules6),
		{noun: "proxied neighbours", req: proxiesRequest(),
			zero: func() { have.Proxies = have.Proxies[:0] },
			each: func(b []byte) {
				if p, ok := parseProxy(b); ok {
					have.Proxies = append(have.Proxies, p)
				}
			}},
		netconfStep("IPv6 settings", family, conf),
	}
	for i := range list {
		list[i].optional = true
		list[i].req.Data[0].(rawData)[0] = family
	}
	return list
}

// routes6Request asks for the IPv6 routes of a protocol in a table; RTPROT_UNSPEC and RT_TABLE_UNSPEC
// are for any. Cached ones are not among them.
func routes6Request(protocol uint8, table uint32) *nl.NetlinkRequest {
	req := dumpRequest(unix.RTM_GETROUTE, rawData{0: unix.AF_INET6, 5: protocol, unix.SizeofRtMsg - 1: 0})
	if table != unix.RT_TABLE_UNSPEC {
		req.AddData(nl.NewRtAttr(unix.RTA_TABLE, nl.Uint32Attr(table)))
	}
	return req
}

// appendRoute6 reads a route and appends it to list if Observe shows it. main tells the dump of the main
// table, which has all of that table, from that of our routes, which is for the other tables.
func appendRoute6(b []byte, main bool, list []vnet.Route) []vnet.Route {
	n := len(list)
	list = parseRoute(b, unix.AF_INET6, list)
	if len(list) == n {
		return list
	}
	switch r := &list[n]; {
	case (r.Table == unix.RT_TABLE_MAIN) != main,
		r.Dst.Addr().IsLinkLocalUnicast(), r.Dst.Addr().IsMulticast(),
		r.Protocol != plan.Protocol && (r.Table != unix.RT_TABLE_MAIN || r.Type != vnet.RouteUnicast && r.Type != vnet.RouteUnreachable):
		return list[:n]
	}
	return list
}
