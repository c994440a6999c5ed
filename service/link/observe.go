package link

import (
	"context"
	"errors"
	"fmt"

	"gangway/service/vnet"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// rawData is a fixed header of a request.
type rawData []byte

func (d rawData) Len() int          { return len(d) }
func (d rawData) Serialize() []byte { return d }

func dumpRequest(kind int, data ...nl.NetlinkRequestData) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, unix.NLM_F_DUMP)
	req.Data = data
	return req
}

// Observe dumps links, addresses of both families, IPv4 routes of all tables, IPv6 routes of the main
// table and ours of all tables, rules of both families, proxied IPv6 neighbours and, for every link as
// well as "all" and "default", the sysctls net/ipv4/conf/LINK/forwarding and rp_filter and
// net/ipv6/conf/LINK/forwarding, proxy_ndp and, of a kernel that tells it (Linux 6.18 doesn't), force_forwarding.
// The sysctls of keys, which are paths below /proc/sys, are read in addition. On a kernel without
// IPv6, what is of IPv6 is empty.
//
// The dumps are made one after the other: a change between two of them shows in one only,
// and pokes whoever watches.
func (k *Kernel) Observe(ctx context.Context, keys []string) (vnet.Kernel, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, err := k.connect()
	if err != nil {
		return vnet.Kernel{}, err
	}
	var have vnet.Kernel
	var conf4, conf6 []netconf
	if err := c.list(ctx, steps(&have, &conf4)); err != nil {
		return vnet.Kernel{}, err
	}
	if err := c.list(ctx, steps6(unix.AF_INET6, &have, &conf6)); err != nil {
		return vnet.Kernel{}, err
	}
	have.Sysctls = sysctlsOf(append(conf4, conf6...), have.Links, len(keys))
	for _, key := range keys {
		if _, known := have.Sysctls[key]; known {
			continue
		}
		value, exists, err := readSysctl(key)
		if err != nil {
			return vnet.Kernel{}, err
		}
		if exists {
			have.Sysctls[key] = value
		}
	}
	have.SavedSysctls = k.memory.all()
	return have, nil
}

// step is one dump of an observation.
type step struct {
	noun string
	req  *nl.NetlinkRequest
	zero func()
	each func(b []byte)
	// optional tells that the kernel may not have such a thing.
	optional bool
}

func (c *conn) list(ctx context.Context, steps []step) error {
	for _, s := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := c.dump(s.req, s.zero, func(_ uint16, b []byte) error { s.each(b); return nil })
		if s.optional && (isUnsupported(err) || errors.Is(err, unix.ENOENT)) { // ENOENT: no such table
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot list %s: %w", s.noun, err)
		}
	}
	return nil
}

func steps(have *vnet.Kernel, conf *[]netconf) []step {
	return []step{
		{noun: "links", req: dumpRequest(unix.RTM_GETLINK, nl.NewIfInfomsg(unix.AF_UNSPEC)),
			zero: func() { have.Links = have.Links[:0] },
			each: func(b []byte) {
				if l, ok := parseLink(b); ok {
					have.Links = append(have.Links, l)
				}
			}},
		{noun: "addresses", req: dumpRequest(unix.RTM_GETADDR, nl.NewIfAddrmsg(unix.AF_UNSPEC)),
			zero: func() { have.Addresses = have.Addresses[:0] },
			each: func(b []byte) {
				if a, ok := parseAddress(b); ok {
					have.Addresses = append(have.Addresses, a)
				}
			}},
		{noun: "routes", req: dumpRequest(unix.RTM_GETROUTE, rawData{unix.SizeofRtMsg - 1: 0, 0: unix.AF_INET}),
			zero: func() { have.Routes = have.Routes[:0] },
			each: func(b []byte) { have.Routes = parseRoute(b, unix.AF_INET, have.Routes) }},
		rulesStep("rules", unix.AF_INET, &have.Rules),
		netconfStep("IPv4 settings", unix.AF_INET, conf),
	}
}

func rulesStep(noun string, family uint8, list *[]vnet.Rule) step {
	return step{noun: noun, req: dumpRequest(unix.RTM_GETRULE, rawData{sizeofFibRuleHdr - 1: 0, 0: family}),
		zero: func() { *list = (*list)[:0] },
		each: func(b []byte) {
			if r, ok := parseRule(b, family); ok {
				*list = append(*list, r)
			}
		}}
}

func netconfStep(noun string, family uint8, list *[]netconf) step {
	return step{noun: noun, req: dumpRequest(unix.RTM_GETNETCONF, rawData{family, 0, 0, 0}),
		zero: func() { *list = (*list)[:0] },
		each: func(b []byte) {
			if n, ok := parseNetconf(b); ok && n.family == family {
				*list = append(*list, n)
			}
		}}
}
