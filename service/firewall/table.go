package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Attributes of linux/netfilter/nf_tables.h that the libraries lack, and NF_ACCEPT of linux/netfilter.h.
const (
	nftaTableName     = 1
	nftaTableHandle   = 4
	nftaChainName     = 3
	nftaChainUserdata = 12
	nfAccept          = 1
)

// baseChain is a chain that iptables-nft makes by itself, with a hook of the kernel's.
type baseChain struct {
	name, kind string
	hook       uint32
	priority   int32
}

// baseChains are iptables-nft's in the tables that we use (iptables 1.8.9, iptables/nft.c,
// xtables_ipv4).
var baseChains = map[string][]baseChain{
	"mangle": {
		{"PREROUTING", "filter", unix.NF_INET_PRE_ROUTING, -150},
		{"INPUT", "filter", unix.NF_INET_LOCAL_IN, -150},
		{"FORWARD", "filter", unix.NF_INET_FORWARD, -150},
		{"OUTPUT", "route", unix.NF_INET_LOCAL_OUT, -150},
		{"POSTROUTING", "filter", unix.NF_INET_POST_ROUTING, -150},
	},
	"nat": {
		{"PREROUTING", "nat", unix.NF_INET_PRE_ROUTING, -100},
		{"INPUT", "nat", unix.NF_INET_LOCAL_IN, 100},
		{"OUTPUT", "nat", unix.NF_INET_LOCAL_OUT, -100},
		{"POSTROUTING", "nat", unix.NF_INET_POST_ROUTING, 100},
	},
	"filter": {
		{"INPUT", "filter", unix.NF_INET_LOCAL_IN, 0},
		{"FORWARD", "filter", unix.NF_INET_FORWARD, 0},
		{"OUTPUT", "filter", unix.NF_INET_LOCAL_OUT, 0},
	},
}

// nftTable is an IPv4 table of nftables.
type nftTable struct {
	// handle is the kernel's number of the table: one that is deleted and made anew has another.
	handle uint64
	flags  uint32
}

// table looks a table up; false if there is none.
func (c *conn) table(name string) (t nftTable, ok bool, err error) {
	list, err := c.do(unix.NFNL_SUBSYS_NFTABLES, unix.NFT_MSG_GETTABLE, 0, nl.NewRtAttr(nftaTableName, nl.ZeroTerminated(name)))
	if errors.Is(err, unix.ENOENT) {
		return t, false, nil
	}
	if err != nil {
		return t, false, fmt.Errorf("cannot look for table %q: %w", name, err)
	}
	for _, m := range list {
		for kind, value := range attributes(m) {
			switch {
			case kind == nftaTableHandle && len(value) == 8:
				t.handle = binary.BigEndian.Uint64(value)
			case kind == unix.NFTA_TABLE_FLAGS && len(value) == 4:
				t.flags = binary.BigEndian.Uint32(value)
			}
		}
	}
	return t, true, nil
}

// untouched tells whether a base chain exists and, if it does, whether it is as iptables made
// it: its hook, its policy, which is to accept, and no comment. Rules aren't looked for.
func (c *conn) untouched(table string, want baseChain) (exists, untouched bool, err error) {
	list, err := c.do(unix.NFNL_SUBSYS_NFTABLES, unix.NFT_MSG_GETCHAIN, 0,
		nl.NewRtAttr(unix.NFTA_CHAIN_TABLE, nl.ZeroTerminated(table)),
		nl.NewRtAttr(nftaChainName, nl.ZeroTerminated(want.name)))
	if errors.Is(err, unix.ENOENT) {
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("cannot look for chain %q of table %q: %w", want.name, table, err)
	}
	got := baseChain{name: want.name}
	var accepts, commented bool
	for _, m := range list {
		for kind, value := range attributes(m) {
			switch kind {
			case unix.NFTA_CHAIN_TYPE:
				got.kind = unix.ByteSliceToString(value)
			case unix.NFTA_CHAIN_POLICY:
				accepts = len(value) == 4 && binary.BigEndian.Uint32(value) == nfAccept
			case nftaChainUserdata:
				commented = true
			case unix.NFTA_CHAIN_HOOK:
				for kind, value := range attributes(value) {
					switch {
					case kind == unix.NFTA_HOOK_HOOKNUM && len(value) == 4:
						got.hook = binary.BigEndian.Uint32(value)
					case kind == unix.NFTA_HOOK_PRIORITY && len(value) == 4:
						got.priority = int32(binary.BigEndian.Uint32(value))
					}
				}
			}
		}
	}
	return true, got == want && accepts && !commented, nil
}

// deleteAttempts is how often a deletion that other changes of the ruleset thwart is tried.
const deleteAttempts = 20

// deleteUnused deletes the table with that handle if nothing is in it but what iptables makes
// by itself; otherwise it leaves everything as it is, and returns false.
func (c *conn) deleteUnused(name string, handle uint64) (deleted bool, err error) {
	for range deleteAttempts {
		generation, err := c.generation()
		if err != nil {
			return false, err
		}
		chains, unused, err := c.unused(name, handle)
		if err != nil || !unused {
			return false, err
		}
		err = c.deleteTable(name, chains, generation)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EBUSY):
			return false, nil
		case !errors.Is(err, unix.ERESTART):
			return false, fmt.Errorf("cannot delete table %q: %w", name, err)
		}
	}
	return false, fmt.Errorf("cannot delete table %q: another program changes the ruleset at the same time", name)
}

// unused tells whether the table is the one with that handle and its chains of iptables' names
// are as iptables makes them, and lists those that exist. For rules, other chains and sets it
// leaves the look to deleteTable.
func (c *conn) unused(name string, handle uint64) (chains []string, unused bool, err error) {
	t, ok, err := c.table(name)
	if err != nil || !ok || t.handle != handle || t.flags != 0 {
		return nil, false, err
	}
	for _, b := range baseChains[name] {
		exists, untouched, err := c.untouched(name, b)
		if err != nil || exists && !untouched {
			return nil, false, err
		}
		if exists {
			chains = append(chains, b.name)
		}
	}
	return chains, true, nil
}

// deleteTable deletes a table and the chains named, all or nothing, if the ruleset still is
// that generation (0: whatever it is) and nothing else is in the table. The error is ERESTART
// in the first case and EBUSY in the second.
//
// Without NLM_F_NONREC the kernel would take a chain's rules along with the chain, and all that
// is in a table with the table (Linux net/netfilter/nf_tables_api.c, nf_tables_delchain).
func (c *conn) deleteTable(name string, chains []string, generation uint32) error {
	handle := c.sockets[unix.NETLINK_NETFILTER]
	next := func() uint32 { return atomic.AddUint32(&handle.Seq, 1) }

	const nonRecursive = unix.NLM_F_REQUEST | unix.NLM_F_NONREC
	first := next()
	b := appendMessage(nil, unix.NFNL_MSG_BATCH_BEGIN, unix.NLM_F_REQUEST, first, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES,
		attribute{unix.NFNL_BATCH_GENID, binary.BigEndian.AppendUint32(nil, generation)})
	for _, chain := range chains {
		b = appendMessage(b, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_DELCHAIN, nonRecursive, next(), unix.AF_INET, 0,
			attribute{unix.NFTA_CHAIN_TABLE, nl.ZeroTerminated(name)}, attribute{nftaChainName, nl.ZeroTerminated(chain)})
	}
	last := next()
	b = appendMessage(b, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_DELTABLE, nonRecursive|unix.NLM_F_ACK, last, unix.AF_INET, 0,
		attribute{nftaTableName, nl.ZeroTerminated(name)})
	b = appendMessage(b, unix.NFNL_MSG_BATCH_END, unix.NLM_F_REQUEST, next(), unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	if err := unix.Sendto(handle.Socket.GetFd(), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	return c.batchAnswer(first, last)
}

// batchAnswer reads the answers to a batch whose messages have the sequence numbers first to
// last, of which last asked for one, and returns the first error among them.
func (c *conn) batchAnswer(first, last uint32) error {
	fd := c.sockets[unix.NETLINK_NETFILTER].Socket.GetFd()
	buffer := make([]byte, 1<<16)
	var failure error
	for {
		n, _, err := unix.Recvfrom(fd, buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		for header, payload := range messages(buffer[:n]) {
			if header.Type != unix.NLMSG_ERROR || header.Seq-first > last-first || len(payload) < 4 {
				continue // left over from a question before this one
			}
			if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(payload))); errno != 0 && failure == nil {
				failure = errno
			}
			if header.Seq == first {
				// The batch as a whole was refused. Other answers may follow or not; the one
				// to a new question comes behind them.
				_, err := c.generation()
				return errors.Join(failure, err)
			}
			if header.Seq == last {
				return failure
			}
		}
	}
}

type attribute struct {
	kind  uint16
	value []byte
}

// appendMessage appends a message to netfilter; resource is nfgenmsg's res_id.
func appendMessage(b []byte, kind, flags uint16, sequence uint32, family uint8, resource uint16, attributes ...attribute) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, sequence)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, family, nl.NFNETLINK_V0)
	b = binary.BigEndian.AppendUint16(b, resource)
	for _, a := range attributes {
		b = appendAttribute(b, a.kind, a.value)
	}
	binary.NativeEndian.PutUint32(b[start:], uint32(len(b)-start))
	return b
}
