package firewall

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"gangway/service/plan"
)

// guards is what was found in the kernel of plan.GuardTable of family netdev.
type guards struct {
	table   bool // there is one
	ours    bool // with our mark
	dormant bool // somebody has put it out of force
	chains  map[string]standing
}

// standing is a chain of the guards'.
type standing struct {
	hooked  bool
	proper  bool // type, hook, priority and policy are as they should be
	devices []string
	rules   []mark
}

// standsAt tells whether the chain is bound to exactly that device, or to none for "".
func (s standing) standsAt(device string) bool {
	if device == "" {
		return !s.hooked
	}
	return s.hooked && s.proper && len(s.devices) == 1 && s.devices[0] == device
}

// mark is what is written down with a rule of a guard: whose it is and where it stands, and a part of
// the guard's digest, which has no spaces and, in all, no bound.
type mark struct{ place, part string }

// partLength is how much of the digest one rule has: the kernel keeps 256 bytes with a rule. The rules at
// the outer end are more than enough.
const partLength = 48

// markOf is the mark of the rule with the index of a chain with that many rules.
func markOf(digest, device string, index, count int) mark {
	sum := sha256.Sum256([]byte(digest))
	begin := min(index*partLength, len(digest))
	return mark{
		place: fmt.Sprintf("%x %s %s %d/%d", sum[:4], edition(), device, index+1, count),
		part:  digest[begin:min(begin+partLength, len(digest))],
	}
}

func (m mark) String() string { return m.place + " " + m.part }

// parseMark reads the user data of a rule; it returns the zero mark if ours isn't in it.
func parseMark(b []byte) (m mark) {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		if b[0] == userdataGuard {
			text := unix.ByteSliceToString(b[2 : 2+int(b[1])])
			if i := strings.LastIndexByte(text, ' '); i >= 0 {
				m = mark{text[:i], text[i+1:]}
			}
			return m
		}
		b = b[2+int(b[1]):]
	}
	return mark{}
}

// watched is what was last seen of the guards.
type watched struct {
	valid      bool
	generation uint32 // of nftables
	// ends holds the index of each interface that a chain stands at. A kernel that binds chains to
	// interfaces and not to names (before 6.16) takes the binding or the chain away with the interface,
	// and counts no new generation.
	ends    map[string]int
	table   bool
	digests map[string]string
}

// lookAtGuards brings watched up to date; generation was asked for a moment ago, 0 without nf_tables.
func (f *Firewall) lookAtGuards(generation uint32) error {
	if generation == 0 {
		f.watched = watched{}
		return nil
	}
	if f.watched.valid && f.watched.generation == generation && f.endsStand() {
		return nil
	}
	f.watched.valid = false
	g, err := f.netlink.guards()
	if err != nil {
		return err
	}
	seen := watched{valid: true, generation: generation, ends: map[string]int{}, table: g.ours, digests: map[string]string{}}
	if g.ours {
		if err := f.netlink.readRules(g); err != nil {
			return err
		}
		for _, c := range g.chains {
			for _, device := range c.devices {
				seen.ends[device] = f.netlink.index(device)
			}
		}
		for name := range g.chains {
			if network, ok := networkOf(name); ok {
				seen.digests[network] = g.digest(network, seen.ends)
			}
		}
	}
	f.watched = seen
	return nil
}

// endsStand tells whether the interfaces are those that they were.
func (f *Firewall) endsStand() bool {
	for name, index := range f.watched.ends {
		if f.netlink.index(name) != index {
			return false
		}
	}
	return true
}

// digest returns the digest of the network's guard, "" if that isn't whole: if a chain is missing, or
// stands elsewhere than at one interface that exists, or has other rules than were installed together.
func (g guards) digest(network string, ends map[string]int) string {
	if g.dormant {
		return ""
	}
	digest := ""
	for _, m := range g.chains[network+outerSuffix].rules {
		digest += m.part
	}
	for _, suffix := range []string{innerSuffix, outerSuffix, refusedSuffix} {
		c, ok := g.chains[network+suffix]
		if !ok || len(c.rules) == 0 {
			return ""
		}
		device := ""
		if suffix != refusedSuffix {
			if len(c.devices) != 1 || ends[c.devices[0]] == 0 {
				return ""
			}
			device = c.devices[0]
		}
		if !c.standsAt(device) {
			return ""
		}
		for i, m := range c.rules {
			if m != markOf(digest, device, i, len(c.rules)) {
				return ""
			}
		}
	}
	return digest
}

// guards reads the table, without its rules.
func (c *conn) guards() (guards, error) {
	var g guards
	t, ok, err := c.tableOfFamily(unix.NFPROTO_NETDEV, plan.GuardTable)
	if err != nil || !ok {
		return g, err
	}
	g = guards{table: true, ours: string(t.userdata) == string(guardTableComment), dormant: t.flags&nftTableDormant != 0, chains: map[string]standing{}}
	chains, err := c.dump(unix.NFT_MSG_GETCHAIN)
	if err != nil {
		return g, err
	}
	for _, m := range chains {
		if name, s, ok := parseStanding(m); ok {
			g.chains[name] = s
		}
	}
	return g, nil
}

// readRules adds what is written down with the rules.
func (c *conn) readRules(g guards) error {
	rules, err := c.dump(unix.NFT_MSG_GETRULE, nl.NewRtAttr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(plan.GuardTable)))
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
		if s, ok := g.chains[chain]; ok && table == plan.GuardTable {
			s.rules = append(s.rules, rule)
			g.chains[chain] = s
		}
	}
	return nil
}

// dump asks for everything of family netdev.
func (c *conn) dump(message int, filter ...*nl.RtAttr) (list [][]byte, err error) {
	for range dumpAttempts {
		list, err = c.ask(unix.NFPROTO_NETDEV, unix.NFNL_SUBSYS_NFTABLES, message, unix.NLM_F_DUMP, filter...)
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the guards: %w", err)
	}
	return list, nil
}

// parseStanding reads a chain; false if it is of another table.
func parseStanding(b []byte) (name string, s standing, ok bool) {
	var table, kind string
	policy, hook, priority := uint32(nfAccept), uint32(0), uint32(0)
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
			s.hooked = true
			for attribute, value := range attributes(value) {
				switch attribute {
				case unix.NFTA_HOOK_HOOKNUM:
					hook = integer(value)
				case unix.NFTA_HOOK_PRIORITY:
					priority = integer(value)
				case nftaHookDevs: // has the one of NFTA_HOOK_DEV, too
					for _, value := range attributes(value) {
						s.devices = append(s.devices, unix.ByteSliceToString(value))
					}
				}
			}
		}
	}
	s.proper = kind == "filter" && policy == nfDrop && hook == unix.NF_NETDEV_INGRESS && priority == 0
	return name, s, table == plan.GuardTable
}

// integer reads an integer of nftables; it is the highest for what isn't one.
func integer(b []byte) uint32 {
	if len(b) != 4 {
		return ^uint32(0)
	}
	return binary.BigEndian.Uint32(b)
}
