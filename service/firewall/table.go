package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Attributes of linux/netfilter/nf_tables.h that the libraries lack, and verdicts of linux/netfilter.h.
const (
	nftaTableHandle   = 4
	nftaTableUserdata = 6
	nftaChainUserdata = 12
	nftaHookDevs      = 4
	nftTableDormant   = 1
	nfDrop            = 0
	nfAccept          = 1
)

// ip6Prefix stands before the names of IPv6 tables, where they are told from those of IPv4. Where it is
// remembered this must never change.
const ip6Prefix = "ip6 "

// tableOf returns a table's family and its name within that.
func tableOf(key string) (family uint8, name string) {
	if name, ok := strings.CutPrefix(key, ip6Prefix); ok {
		return unix.NFPROTO_IPV6, name
	}
	return unix.NFPROTO_IPV4, key
}

// baseChain is a chain that iptables-nft makes by itself, with a hook of the kernel's.
type baseChain struct {
	name, kind string
	hook       uint32
	priority   int32
}

// baseChains are iptables-nft's in the tables that we use (iptables 1.8.9, iptables/nft.c,
// xtables_ipv4; it names it so for both families).
var baseChains = map[string][]baseChain{
	"mangle":             mangleChains,
	"nat":                natChains,
	"filter":             filterChains,
	ip6Prefix + "mangle": mangleChains,
	ip6Prefix + "nat":    natChains,
	ip6Prefix + "filter": filterChains,
}

var (
	mangleChains = []baseChain{
		{"PREROUTING", "filter", unix.NF_INET_PRE_ROUTING, -150},
		{"INPUT", "filter", unix.NF_INET_LOCAL_IN, -150},
		{"FORWARD", "filter", unix.NF_INET_FORWARD, -150},
		{"OUTPUT", "route", unix.NF_INET_LOCAL_OUT, -150},
		{"POSTROUTING", "filter", unix.NF_INET_POST_ROUTING, -150},
	}
	natChains = []baseChain{
		{"PREROUTING", "nat", unix.NF_INET_PRE_ROUTING, -100},
		{"INPUT", "nat", unix.NF_INET_LOCAL_IN, 100},
		{"OUTPUT", "nat", unix.NF_INET_LOCAL_OUT, -100},
		{"POSTROUTING", "nat", unix.NF_INET_POST_ROUTING, 100},
	}
	filterChains = []baseChain{
		{"INPUT", "filter", unix.NF_INET_LOCAL_IN, 0},
		{"FORWARD", "filter", unix.NF_INET_FORWARD, 0},
		{"OUTPUT", "filter", unix.NF_INET_LOCAL_OUT, 0},
	}
)

// nftTable is a table of nftables.
type nftTable struct {
	// handle is the kernel's number of the table: one that is deleted and made anew has another.
	handle   uint64
	flags    uint32
	userdata []byte
}

// table looks a table of iptables' up; false if there is none.
func (c *conn) table(key string) (t nftTable, ok bool, err error) {
	family, name := tableOf(key)
	return c.tableOfFamily(family, name)
}

// tableOfFamily looks a table up; false if there is none.
func (c *conn) tableOfFamily(family uint8, name string) (t nftTable, ok bool, err error) {
	list, err := c.ask(family, unix.NFNL_SUBSYS_NFTABLES, unix.NFT_MSG_GETTABLE, 0, nl.NewRtAttr(unix.NFTA_TABLE_NAME, nl.ZeroTerminated(name)))
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
			case kind == nftaTableUserdata:
				t.userdata = value
			}
		}
	}
	return t, true, nil
}

// untouched tells whether a base chain exists and, if it does, whether it is as iptables made
// it: its hook, its policy, which is to accept, and no comment. Rules aren't looked for.
func (c *conn) untouched(key string, want baseChain) (exists, untouched bool, err error) {
	family, table := tableOf(key)
	list, err := c.ask(family, unix.NFNL_SUBSYS_NFTABLES, unix.NFT_MSG_GETCHAIN, 0,
		nl.NewRtAttr(unix.NFTA_CHAIN_TABLE, nl.ZeroTerminated(table)),
		nl.NewRtAttr(unix.NFTA_CHAIN_NAME, nl.ZeroTerminated(want.name)))
	if errors.Is(err, unix.ENOENT) {
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("cannot look for chain %q of table %q: %w", want.name, key, err)
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
func (c *conn) deleteUnused(key string, handle uint64) (deleted bool, err error) {
	for range deleteAttempts {
		generation, err := c.generation()
		if err != nil {
			return false, err
		}
		chains, unused, err := c.unused(key, handle)
		if err != nil || !unused {
			return false, err
		}
		err = c.deleteTable(key, chains, generation)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EBUSY):
			return false, nil
		case !errors.Is(err, unix.ERESTART):
			return false, fmt.Errorf("cannot delete table %q: %w", key, err)
		}
	}
	return false, fmt.Errorf("cannot delete table %q: another program changes the ruleset at the same time", key)
}

// unused tells whether the table is the one with that handle and its chains of iptables' names
// are as iptables makes them, and lists those that exist. For rules, other chains and sets it
// leaves the look to deleteTable.
func (c *conn) unused(key string, handle uint64) (chains []string, unused bool, err error) {
	t, ok, err := c.table(key)
	if err != nil || !ok || t.handle != handle || t.flags != 0 {
		return nil, false, err
	}
	for _, b := range baseChains[key] {
		exists, untouched, err := c.untouched(key, b)
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
func (c *conn) deleteTable(key string, chains []string, generation uint32) error {
	family, name := tableOf(key)
	b := c.newBatch(generation)
	for _, chain := range chains {
		b.add(family, unix.NFT_MSG_DELCHAIN, unix.NLM_F_NONREC, text(unix.NFTA_CHAIN_TABLE, name), text(unix.NFTA_CHAIN_NAME, chain))
	}
	b.add(family, unix.NFT_MSG_DELTABLE, unix.NLM_F_NONREC, text(unix.NFTA_TABLE_NAME, name))
	return b.commit()
}
