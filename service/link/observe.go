package link

import (
	"context"
	"fmt"
	"strconv"

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

// Observe dumps links, addresses of both families, IPv4 routes of all tables, IPv4 rules and,
// for every link as well as "all" and "default", the sysctls net/ipv4/conf/LINK/forwarding
// and rp_filter. The sysctls of keys, which are paths below /proc/sys, are read in addition.
//
// The dumps are made one after the other: a change between two of them shows in one only,
// and pokes whoever watches.
func (k *Kernel) Observe(ctx context.Context, keys []string) (vnet.Kernel, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var have vnet.Kernel
	c, err := k.connect()
	if err != nil {
		return have, err
	}
	var conf []netconf
	steps := []struct {
		noun string
		kind int
		head nl.NetlinkRequestData
		zero func()
		each func(kind uint16, body []byte) error
	}{
		{"links", unix.RTM_GETLINK, nl.NewIfInfomsg(unix.AF_UNSPEC), func() { have.Links = have.Links[:0] },
			func(_ uint16, b []byte) error {
				if l, ok := parseLink(b); ok {
					have.Links = append(have.Links, l)
				}
				return nil
			}},
		{"addresses", unix.RTM_GETADDR, nl.NewIfAddrmsg(unix.AF_UNSPEC), func() { have.Addresses = have.Addresses[:0] },
			func(_ uint16, b []byte) error {
				if a, ok := parseAddress(b); ok {
					have.Addresses = append(have.Addresses, a)
				}
				return nil
			}},
		{"routes", unix.RTM_GETROUTE, rawData{unix.SizeofRtMsg - 1: 0, 0: unix.AF_INET}, func() { have.Routes = have.Routes[:0] },
			func(_ uint16, b []byte) error { have.Routes = parseRoute(b, have.Routes); return nil }},
		{"rules", unix.RTM_GETRULE, rawData{sizeofFibRuleHdr - 1: 0, 0: unix.AF_INET}, func() { have.Rules = have.Rules[:0] },
			func(_ uint16, b []byte) error {
				if r, ok := parseRule(b); ok {
					have.Rules = append(have.Rules, r)
				}
				return nil
			}},
		{"IPv4 settings", unix.RTM_GETNETCONF, rawData{unix.AF_INET, 0, 0, 0}, func() { conf = conf[:0] },
			func(_ uint16, b []byte) error {
				if n, ok := parseNetconf(b); ok {
					conf = append(conf, n)
				}
				return nil
			}},
	}
	for _, s := range steps {
		if err := ctx.Err(); err != nil {
			return vnet.Kernel{}, err
		}
		if err := c.dump(dumpRequest(s.kind, s.head), s.zero, s.each); err != nil {
			return vnet.Kernel{}, fmt.Errorf("cannot list %s: %w", s.noun, err)
		}
	}
	have.Sysctls = sysctlsOf(conf, have.Links, len(keys))
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

// sysctlsOf spells out what the netconf dump said, by the names of the links.
func sysctlsOf(conf []netconf, links []vnet.Link, more int) map[string]string {
	names := make(map[int]string, len(links)+2)
	for i := range links {
		names[links[i].Index] = links[i].Name
	}
	names[netconfAll], names[netconfDefault] = "all", "default"
	values := make(map[string]string, 2*len(conf)+more)
	for _, c := range conf {
		name, known := names[c.index]
		if !known {
			continue // it came or went between the dumps
		}
		dir := "net/ipv4/conf/" + name
		if c.forwarding != absent {
			values[dir+"/forwarding"] = strconv.Itoa(int(c.forwarding))
		}
		if c.rpFilter != absent {
			values[dir+"/rp_filter"] = strconv.Itoa(int(c.rpFilter))
		}
	}
	return values
}
