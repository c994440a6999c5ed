package firewall

import (
	"fmt"
	"slices"
	"strings"
)

// ruleset is what iptables-save printed: by table and chain, the chain's rules without
// "-A CHAIN ".
type ruleset map[string]map[string][]string

// parseRuleset reads the output of iptables-save. A table of our chains' that iptables can't show, because
// native nftables rules were put into it, is an error.
func parseRuleset(text string, ours []chain) (ruleset, error) {
	set := ruleset{}
	var table map[string][]string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "# Table `") && strings.Contains(line, "incompatible"):
			name, _, _ := strings.Cut(strings.TrimPrefix(line, "# Table `"), "'")
			if slices.ContainsFunc(ours, func(c chain) bool { return c.table == name }) {
				return nil, fmt.Errorf("cannot read table %q: it has nftables rules that iptables doesn't know", name)
			}
		case line == "" || line[0] == '#' || line == "COMMIT":
		case line[0] == '*':
			table = set[line[1:]]
			if table == nil {
				table = map[string][]string{}
				set[line[1:]] = table
			}
		case table == nil:
			return nil, fmt.Errorf("cannot read ruleset: %q stands before any table", line)
		case line[0] == ':':
			name, _, _ := strings.Cut(line[1:], " ")
			if _, ok := table[name]; !ok {
				table[name] = []string{}
			}
		case strings.HasPrefix(line, "-A "):
			name, rule, _ := strings.Cut(line[len("-A "):], " ")
			table[name] = append(table[name], rule)
		default:
			return nil, fmt.Errorf("cannot read ruleset: unexpected line %q", line)
		}
	}
	return set, nil
}

// has tells whether the chain exists.
func (s ruleset) has(c chain) bool {
	_, ok := s[c.table][c.name]
	return ok
}

// jumps returns how many jumps to the chain there are in its hook, and whether the hook's
// first rule is one.
func (s ruleset) jumps(c chain) (count int, first bool) {
	rules := s[c.table][c.hook]
	for _, rule := range rules {
		if rule == c.jump() {
			count++
		}
	}
	return count, len(rules) > 0 && rules[0] == c.jump()
}

// accepted holds the forms in which iptables may print our chains' rules: ours, and the one in
// which this machine's iptables printed what had just been installed, by table and chain.
type accepted struct{ printed map[[2]string][]string }

func (a accepted) intact(s ruleset, c chain) bool {
	rules, ok := s[c.table][c.name]
	return ok && (slices.Equal(rules, c.rules) ||
		len(rules) == len(c.rules) && slices.Equal(rules, a.printed[[2]string{c.table, c.name}]))
}

// learn remembers how this machine's iptables prints chains that were installed a moment ago:
// versions differ in the order of options and the like.
func (a *accepted) learn(s ruleset, want []chain) {
	a.printed = map[[2]string][]string{}
	for _, c := range want {
		if printed := s[c.table][c.name]; len(printed) == len(c.rules) && !slices.Equal(printed, c.rules) {
			a.printed[[2]string{c.table, c.name}] = printed
		}
	}
}

// problem says what is amiss first, "" if all chains and jumps are as they should be.
func (a accepted) problem(s ruleset, want []chain) string {
	for _, c := range want {
		count, first := s.jumps(c)
		switch {
		case !s.has(c):
			return fmt.Sprintf("chain %s of table %s is missing", c.name, c.table)
		case !a.intact(s, c):
			return fmt.Sprintf("chain %s of table %s has other rules than ours", c.name, c.table)
		case count == 0:
			return fmt.Sprintf("the jump from %s to %s in table %s is missing", c.hook, c.name, c.table)
		case !first:
			return fmt.Sprintf("the jump from %s to %s in table %s stands behind %q",
				c.hook, c.name, c.table, s[c.table][c.hook][0])
		case count > 1:
			return fmt.Sprintf("the jump from %s to %s in table %s stands there %d times", c.hook, c.name, c.table, count)
		}
	}
	return ""
}

// present tells whether a chain or a jump of ours is there.
func (s ruleset) present(ours []chain) bool {
	for _, c := range ours {
		if count, _ := s.jumps(c); count > 0 || s.has(c) {
			return true
		}
	}
	return false
}

// renderInstall returns the input of iptables-restore --noflush that makes s what it should
// be, "" if it is. Chains and jumps that are right aren't mentioned.
func (a accepted) renderInstall(s ruleset, want []chain) string {
	return render(want, func(c chain) (declare bool, lines []string) {
		if !a.intact(s, c) {
			declare = true // also empties it
			for _, rule := range c.rules {
				lines = append(lines, "-A "+c.name+" "+rule)
			}
		}
		if count, first := s.jumps(c); count != 1 || !first {
			for range count {
				lines = append(lines, "-D "+c.hook+" "+c.jump())
			}
			lines = append(lines, "-I "+c.hook+" 1 "+c.jump())
		}
		return declare, lines
	})
}

// renderRemove returns the input of iptables-restore --noflush that removes what is ours
// from s, "" if nothing is.
func renderRemove(s ruleset, ours []chain) string {
	return render(ours, func(c chain) (declare bool, lines []string) {
		count, _ := s.jumps(c)
		for range count {
			lines = append(lines, "-D "+c.hook+" "+c.jump())
		}
		if s.has(c) {
			lines = append(lines, "-F "+c.name, "-X "+c.name)
		}
		return false, lines
	})
}

// render puts together the tables for which change has lines. Declarations come first in
// each, as the format wants it.
func render(all []chain, change func(chain) (declare bool, lines []string)) string {
	var out strings.Builder
	for i := 0; i < len(all); {
		table := all[i].table
		var declarations, rules []string
		for ; i < len(all) && all[i].table == table; i++ {
			declare, lines := change(all[i])
			if declare {
				declarations = append(declarations, ":"+all[i].name+" - [0:0]")
			}
			rules = append(rules, lines...)
		}
		if len(rules) == 0 {
			continue
		}
		fmt.Fprintf(&out, "*%s\n", table)
		for _, line := range append(declarations, rules...) {
			fmt.Fprintln(&out, line)
		}
		fmt.Fprintln(&out, "COMMIT")
	}
	return out.String()
}
