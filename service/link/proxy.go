package link

import (
	"errors"
	"fmt"
	"net/netip"

	"gangway/service/plan"
	"gangway/service/vnet"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ndaProtocol is NDA_PROTOCOL (linux/neighbour.h).
const ndaProtocol = 12

// addProxy leaves the entry of somebody else for the same address alone: it answers as well.
// The entry is permanent, or the kernel would forget it when the link loses its carrier; when
// the link goes down, it forgets it nevertheless.
func (c *conn) addProxy(o plan.AddProxy) error {
	l, err := c.linkByName(o.Link)
	if err == nil {
		_, err = c.proxy(l.Index, o.Address)
		if errors.Is(err, unix.ENOENT) {
			req := proxyRequest(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_EXCL, l.Index, o.Address, unix.NUD_PERMANENT)
			req.AddData(nl.NewRtAttr(ndaProtocol, nl.Uint8Attr(plan.Protocol)))
			err = c.do(req)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot answer for %s on %q: %w", o.Address, o.Link, err)
	}
	return nil
}

func (c *conn) deleteProxy(o plan.DeleteProxy) error {
	l, err := c.linkByName(o.Link)
	var p vnet.Proxy
	if err == nil {
		p, err = c.proxy(l.Index, o.Address)
	}
	if err == nil && p.Protocol == plan.Protocol {
		err = c.do(proxyRequest(unix.RTM_DELNEIGH, 0, l.Index, o.Address, 0))
	}
	if err != nil && !isAbsent(err) && !errors.Is(err, unix.ENOENT) && !isUnsupported(err) {
		return fmt.Errorf("cannot stop answering for %s on %q: %w", o.Address, o.Link, err)
	}
	return nil
}

// proxy looks the entry up that the kernel would answer by; ENOENT says that there is none.
func (c *conn) proxy(index int, address netip.Addr) (p vnet.Proxy, err error) {
	err = c.exchange(proxyRequest(unix.RTM_GETNEIGH, 0, index, address, 0), func(_ uint16, b []byte) error {
		p, _ = parseProxy(b)
		return nil
	})
	return p, err
}

// proxyRequest is about a proxied IPv6 neighbour (struct ndmsg in linux/neighbour.h).
func proxyRequest(kind, flags, index int, address netip.Addr, state uint16) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, flags)
	head := make(rawData, unix.SizeofNdMsg)
	head[0] = unix.AF_INET6
	native.PutUint32(head[4:], uint32(index))
	native.PutUint16(head[8:], state)
	head[10] = unix.NTF_PROXY
	req.AddData(head)
	req.AddData(nl.NewRtAttr(unix.NDA_DST, address.AsSlice()))
	return req
}

// proxiesRequest asks for all of them.
func proxiesRequest() *nl.NetlinkRequest {
	return dumpRequest(unix.RTM_GETNEIGH, rawData{0: unix.AF_INET6, 10: unix.NTF_PROXY, unix.SizeofNdMsg - 1: 0})
}

// parseProxy reads the body of a RTM_NEWNEIGH that answers a request for proxied neighbours.
func parseProxy(b []byte) (p vnet.Proxy, ok bool) {
	if len(b) < unix.SizeofNdMsg {
		return p, false
	}
	p.Link = int(int32(native.Uint32(b[4:])))
	for a := range attributes(b[unix.SizeofNdMsg:]) {
		switch a.kind {
		case unix.NDA_DST:
			p.Address = a.addr()
		case ndaProtocol:
			p.Protocol = a.u8()
		}
	}
	return p, p.Address.IsValid()
}
