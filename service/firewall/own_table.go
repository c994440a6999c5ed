package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"gangway/service/plan"
)

// ownTable is a table of nftables that is ours as a whole: its comment says so.
type ownTable struct {
	family           uint8
	familyName, name string
	option           string // what the kernel has the family by: CONFIG_NF_TABLES_…
	comment          []byte
}

// The comments must never change: they mark the tables as ours.
var (
	guardTable    = ownTable{unix.NFPROTO_NETDEV, "netdev", plan.GuardTable, "NETDEV", comment("guards of gangwayd's IPv6-only links")}
	forwardTable  = ownTable{unix.NFPROTO_INET, "inet", plan.ForwardTable, "INET", comment("gangwayd's filter of what is routed")}
	forward6Table = ownTable{unix.NFPROTO_IPV6, "ip6", plan.ForwardTable, "IPV6", comment("gangwayd's filter of what is routed")}
)

// Types of libnftnl's user data (libnftnl/udata.h: type, length, value), and one of our own, which nft
// passes over.
const (
	userdataComment = 0 // for tables and rules alike
	userdataGuard   = 0x67
)

func userdata(kind byte, value string) []byte {
	return append([]byte{kind, byte(len(value) + 1)}, value+"\x00"...)
}

func comment(value string) []byte { return userdata(userdataComment, value) }

// hook is where a base chain stands; the zero hook is that of a chain which others lead to.
type hook struct {
	kind     string // "filter"
	number   uint32 // NF_*
	priority int32
	policy   uint32
	device   string // in family netdev
}

// ingress is the hook at a device's ingress.
func ingress(device string, policy uint32) hook {
	return hook{"filter", unix.NF_NETDEV_INGRESS, 0, policy, device}
}

// attributes returns those that bind a chain to the hook; none for the zero hook.
func (h hook) attributes() []attribute {
	if h == (hook{}) {
		return nil
	}
	parts := []attribute{number(unix.NFTA_HOOK_HOOKNUM, h.number), number(unix.NFTA_HOOK_PRIORITY, uint32(h.priority))}
	if h.device != "" {
		parts = append(parts, text(unix.NFTA_HOOK_DEV, h.device))
	}
	return []attribute{nested(unix.NFTA_CHAIN_HOOK, parts...), number(unix.NFTA_CHAIN_POLICY, h.policy), text(unix.NFTA_CHAIN_TYPE, h.kind)}
}

// found is what was found in the kernel of such a table.
type found struct {
	ownTable
	exists  bool
	ours    bool // with our mark
	dormant bool // somebody has put it out of force
	chains  map[string]standing
}

// standing is a chain that was found. The device of one that stands at several is all their names.
type standing struct {
	at    hook
	rules []mark
}

// look reads the table, without its rules.
func (c *conn) look(of ownTable) (found, error) {
	f := found{ownTable: of}
	t, ok, err := c.tableOfFamily(of.family, of.name)
	if err != nil || !ok {
		return f, err
	}
	f.exists, f.ours, f.dormant = true, string(t.userdata) == string(of.comment), t.flags&nftTableDormant != 0
	f.chains = map[string]standing{}
	chains, err := c.dump(of, unix.NFT_MSG_GETCHAIN)
	if err != nil {
		return f, err
	}
	for _, m := range chains {
		if table, name, at := parseChain(m); table == of.name {
			f.chains[name] = standing{at: at}
		}
	}
	return f, nil
}

// lookWhole reads the table, and what is written down with its rules if it is ours.
func (c *conn) lookWhole(of ownTable) (found, error) {
	f, err := c.look(of)
	if err == nil && f.ours {
		err = c.readRules(f)
	}
	return f, err
}

// readRules adds what is written down with the rules.
func (c *conn) readRules(f found) error {
	rules, err := c.dump(f.ownTable, unix.NFT_MSG_GETRULE, nl.NewRtAttr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(f.name)))
	if err != nil {
		return err
	}
	for _, m := range rules {
		var table, chain string
		var rule mark
		for kind, value := range attributes(m) {
			switch kind {
			case unix.NFTA_RULE_TABLE:
				table = unix.ByteSliceToString(value)
			case unix.NFTA_RULE_CHAIN:
				chain = unix.ByteSliceToString(value)
			case unix.NFTA_RULE_USERDATA:
				rule = parseMark(value)
			}
		}
		if s, ok := f.chains[chain]; ok && table == f.name {
			s.rules = append(s.rules, rule)
			f.chains[chain] = s
		}
	}
	return nil
}

// dump asks for everything of the table's family.
func (c *conn) dump(of ownTable, message int, filter ...*nl.RtAttr) (list [][]byte, err error) {
	for range dumpAttempts {
		list, err = c.ask(of.family, unix.NFNL_SUBSYS_NFTABLES, message, unix.NLM_F_DUMP, filter...)
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read table %q of family %s: %w", of.name, of.familyName, err)
	}
	return list, nil
}

// parseChain reads which chain of which table it is, and where it stands.
func parseChain(b []byte) (table, name string, at hook) {
	var kind string
	policy := uint32(nfAccept)
	for attribute, value := range attributes(b) {
		switch attribute {
		case unix.NFTA_CHAIN_TABLE:
			table = unix.ByteSliceToString(value)
		case unix.NFTA_CHAIN_NAME:
			name = unix.ByteSliceToString(value)
		case unix.NFTA_CHAIN_TYPE:
			kind = unix.ByteSliceToString(value)
		case unix.NFTA_CHAIN_POLICY:
			policy = integer(value)
		case unix.NFTA_CHAIN_HOOK:
			at = parseHook(value)
		}
	}
	if kind != "" {
		at.kind, at.policy = kind, policy
	}
	return table, name, at
}

func parseHook(b []byte) (at hook) {
	for attribute, value := range attributes(b) {
		switch attribute {
		case unix.NFTA_HOOK_HOOKNUM:
			at.number = integer(value)
		case unix.NFTA_HOOK_PRIORITY:
			at.priority = int32(integer(value))
		case nftaHookDevs: // has the one of NFTA_HOOK_DEV, too
			for _, value := range attributes(value) {
				at.device += unix.ByteSliceToString(value)
			}
		}
	}
	return at
}

// integer reads an integer of nftables; it is the highest for what isn't one.
func integer(b []byte) uint32 {
	if len(b) != 4 {
		return ^uint32(0)
	}
	return binary.BigEndian.Uint32(b)
}
