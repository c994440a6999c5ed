package firewall

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// flushFlows deletes the tracked IPv4 connections that op means, and returns how many it
// were. One that ended by itself between the dump and its deletion is counted, too.
func (f *Firewall) flushFlows(op plan.FlushFlows) (int, error) {
	deleted := 0
	for range dumpAttempts {
		n, err := f.conntrack.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, &staleFlows{op: op, seen: map[flowKey]bool{}})
		deleted += int(n)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			if err != nil {
				return deleted, fmt.Errorf("cannot flush stale flows: %w", err)
			}
			return deleted, nil
		}
	}
	return deleted, fmt.Errorf("cannot flush stale flows: %w", netlink.ErrDumpInterrupted)
}

// dumpAttempts is how often a dump that was disturbed is made.
const dumpAttempts = 3

// staleFlows selects what a FlushFlows means. A dump may show a flow twice when the kernel's
// table is rearranged meanwhile: the second is passed over, for the sake of the count.
type staleFlows struct {
	op   plan.FlushFlows
	seen map[flowKey]bool
}

type flowKey struct {
	flow             vnet.Flow
	from, to, answer uint16
	zone             uint16
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (s *staleFlows) MatchConntrackFlow(c *netlink.ConntrackFlow) bool {
	source := addressOf(c.Forward.SrcIP)
	if !s.ours(source) {
		return false
	}
	flow := vnet.Flow{
		Protocol:    c.Forward.Protocol,
		Source:      source,
		Destination: addressOf(c.Forward.DstIP),
		Translated:  addressOf(c.Reverse.DstIP),
	}
	if !s.op.Stale(flow) {
		return false
	}
	// ICMP has no ports; two pings between the same hosts are one here, and both are stale:
	// they are told apart by never being remembered.
	if flow.Protocol == unix.IPPROTO_ICMP {
		return true
	}
	key := flowKey{flow, c.Forward.SrcPort, c.Forward.DstPort, c.Reverse.DstPort, c.Zone}
	if s.seen[key] {
		return false
	}
	s.seen[key] = true
	return true
}

func (s *staleFlows) ours(source netip.Addr) bool {
	for _, subnet := range s.op.Subnets {
		if subnet.Contains(source) {
			return true
		}
	}
	return false
}

func addressOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
