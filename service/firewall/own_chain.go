package firewall

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// ownChain is a chain of a table of ours, with the anonymous sets that its rules refer to.
type ownChain struct {
	name  string
	at    hook
	sets  []nameSet
	rules []ownRule
}

// change carries out what change puts into a transaction after a look at the tables; nothing if it puts
// nothing there.
func (f *Firewall) change(of []ownTable, change func(*batch, []found) error) error {
	for range deleteAttempts {
		generation, err := f.generation()
		if err != nil {
			return err
		}
		if generation == 0 {
			return errNoFamily(of[0])
		}
		var there []found
		for _, table := range of {
			t, err := f.netlink.look(table)
			if err != nil {
				return err
			}
			there = append(there, t)
		}
		b := f.netlink.newBatch(generation)
		if err := change(b, there); err != nil {
			return err
		}
		if b.last == 0 {
			return nil
		}
		f.watched.valid = false
		if err := b.commit(); err == nil {
			// Chains of iptables' that were looked at before this are as they were.
			if f.seen.generation == generation {
				f.seen.generation = nextGeneration(generation)
			}
			return nil
		} else if !errors.Is(err, unix.ERESTART) {
			return err
		}
	}
	return errors.New("another program changes the ruleset at the same time")
}

// errFamily is the kernel's lack of a family of nf_tables.
var errFamily = errors.New("the kernel lacks nf_tables")

// errNoFamily says what the kernel lacks.
func errNoFamily(of ownTable) error {
	return fmt.Errorf("%w for family %s (CONFIG_NF_TABLES_%s)", errFamily, of.familyName, of.option)
}

// nextGeneration is the number that the kernel counts on to: 0 is left out (Linux
// net/netfilter/nf_tables_api.c, nf_tables_commit).
func nextGeneration(g uint32) uint32 { return max(g+1, 1) }

// put adds what puts chains in the place of the outdated, all of them chains of the table, whatever is
// there of either. writing tells what is written down with a rule.
func (f found) put(b *batch, chains []ownChain, outdated []string, writing func(c ownChain, rule int) mark) error {
	if f.exists && !f.ours {
		return fmt.Errorf("table %q of family %s is somebody else's", f.name, f.familyName)
	}
	table := text(unix.NFTA_CHAIN_TABLE, f.name) // the attribute is the same for chains and rules
	switch {
	case !f.exists:
		b.add(f.family, unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, table, attribute{nftaTableUserdata, f.comment})
		b.need(fmt.Sprintf("nf_tables for family %s (CONFIG_NF_TABLES_%s)", f.familyName, f.option))
	case f.dormant:
		b.add(f.family, unix.NFT_MSG_NEWTABLE, 0, table, number(unix.NFTA_TABLE_FLAGS, 0))
	}
	// A chain that stands where it should keeps standing: its rules change at once with the
	// transaction. Rules go before the chains that they lead to.
	var misplaced []string
	for _, c := range chains {
		if there, ok := f.chains[c.name]; ok {
			b.add(f.family, unix.NFT_MSG_DELRULE, 0, table, text(unix.NFTA_RULE_CHAIN, c.name))
			if there.at != c.at {
				misplaced = append(misplaced, c.name)
				delete(f.chains, c.name)
			}
		}
	}
	f.take(b, outdated)
	for _, name := range misplaced {
		b.add(f.family, unix.NFT_MSG_DELCHAIN, 0, table, text(unix.NFTA_CHAIN_NAME, name))
	}
	for _, c := range chains {
		if _, ok := f.chains[c.name]; !ok {
			b.add(f.family, unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE|unix.NLM_F_EXCL, append([]attribute{table, text(unix.NFTA_CHAIN_NAME, c.name)}, c.at.attributes()...)...)
		}
	}
	for _, c := range slices.Backward(chains) { // what is led to comes first
		for _, s := range c.sets {
			s.put(b, f.ownTable)
		}
		for i, r := range c.rules {
			note := append(comment(r.name), userdata(userdataGuard, writing(c, i).String())...)
			b.add(f.family, unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, table, text(unix.NFTA_RULE_CHAIN, c.name),
				nested(unix.NFTA_RULE_EXPRESSIONS, r.steps...), attribute{unix.NFTA_RULE_USERDATA, note})
			b.need(r.needs)
		}
	}
	return nil
}

// take adds what removes those of the chains that are there.
func (f found) take(b *batch, names []string) {
	table := text(unix.NFTA_CHAIN_TABLE, f.name)
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { _, ok := f.chains[name]; return !ok })
	for _, name := range names {
		b.add(f.family, unix.NFT_MSG_DELRULE, 0, table, text(unix.NFTA_RULE_CHAIN, name))
	}
	for _, name := range names {
		b.add(f.family, unix.NFT_MSG_DELCHAIN, 0, table, text(unix.NFTA_CHAIN_NAME, name))
	}
}

// removeChains removes those chains, and the table if nothing is left in it.
func (f *Firewall) removeChains(of ownTable, names []string) error {
	err := f.change([]ownTable{of}, func(b *batch, there []found) error {
		if there[0].ours {
			there[0].take(b, names)
		}
		return nil
	})
	if err == nil {
		err = f.change([]ownTable{of}, func(b *batch, there []found) error {
			if there[0].ours && len(there[0].chains) == 0 {
				b.add(of.family, unix.NFT_MSG_DELTABLE, unix.NLM_F_NONREC, text(unix.NFTA_TABLE_NAME, of.name))
			}
			return nil
		})
	}
	if errors.Is(err, unix.EBUSY) || errors.Is(err, errFamily) {
		return nil // somebody has put something into it, or there is none
	}
	return err
}

// removeTable removes the table with all that is in it.
func (f *Firewall) removeTable(of ownTable) error {
	err := f.change([]ownTable{of}, func(b *batch, there []found) error {
		if there[0].ours {
			b.add(of.family, unix.NFT_MSG_DELTABLE, 0, text(unix.NFTA_TABLE_NAME, of.name))
		}
		return nil
	})
	if errors.Is(err, errFamily) {
		return nil
	}
	return err
}

// lacksExpression tells whether the kernel may have refused a rule because it has no such expression, or
// not in this family.
func lacksExpression(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EINVAL)
}
