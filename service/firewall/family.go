package firewall

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/coreos/go-iptables/iptables"
)

// family is the packet filter of one of the two IP protocols.
type family struct {
	programs
	// prefix stands before the names of tables in the memory, label before problems.
	prefix, label string
	chains        func(bridged bool) []chain
	accepted      accepted
}

const ipv6Label = "IPv6: "

// ipv6Program returns the name of the IPv6 program that belongs to the one for IPv4.
func ipv6Program(name string) string {
	dir, base := filepath.Split(name)
	return dir + strings.Replace(base, "iptables", "ip6tables", 1)
}

// hasIPv6 tells whether the kernel has IPv6.
func hasIPv6() (bool, error) { return there("IPv6", "/proc/sys/net/ipv6/conf") }

// hasBridgeNetfilter tells whether br_netfilter is there, built in or loaded.
func hasBridgeNetfilter() (bool, error) {
	return there("br_netfilter", "/proc/sys/net/bridge/bridge-nf-call-iptables")
}

func there(what, file string) (bool, error) {
	_, err := os.Stat(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, fmt.Errorf("cannot look for %s: %w", what, err)
	}
	return err == nil, nil
}

// findFamilies looks up the programs. Those for IPv6 may be missing where the kernel has no IPv6.
func (f *Firewall) findFamilies(name string) error {
	found, err := findPrograms(name, iptables.ProtocolIPv4)
	if err != nil {
		return err
	}
	f.ipv4 = &family{programs: found, chains: chains}
	ipv6, err := hasIPv6()
	if err != nil {
		return err
	}
	if found, err = findPrograms(ipv6Program(name), iptables.ProtocolIPv6); err != nil {
		f.noIPv6 = err
		if ipv6 {
			return err
		}
		return nil
	}
	f.ipv6 = &family{programs: found, label: ipv6Label, prefix: ip6Prefix, chains: chains6}
	return nil
}

// of returns the family that a table belongs to, nil if it isn't used.
func (f *Firewall) of(table string) *family {
	if strings.HasPrefix(table, ip6Prefix) {
		return f.ipv6
	}
	return f.ipv4
}

// usesNftables tells whether all families' backend is nf_tables.
func (f *Firewall) usesNftables() bool { return f.ipv4.nft && (f.ipv6 == nil || f.ipv6.nft) }

// reading is a family and what was read of it, or why it couldn't be.
type reading struct {
	*family
	rules ruleset
	want  []chain
	err   error
}

// read reads the rules of the families that the kernel has, side by side, IPv4 first. The error is that of
// IPv4: what stands in IPv6's way must not keep IPv4 from working.
func (f *Firewall) read(ctx context.Context, bridged bool) ([]reading, error) {
	ipv6, err := hasIPv6()
	if err != nil {
		return nil, err
	}
	readings := []reading{{family: f.ipv4}}
	switch {
	case ipv6 && f.ipv6 == nil: // it has come since New
		readings = append(readings, reading{family: &family{label: ipv6Label}, err: f.noIPv6})
	case ipv6:
		readings = append(readings, reading{family: f.ipv6})
	}
	running := make([]*process, len(readings))
	for i, r := range readings {
		if r.err == nil {
			running[i] = start(ctx, "", r.save)
		}
	}
	for i := range readings {
		if r := &readings[i]; r.err == nil {
			r.want = r.chains(bridged)
			r.rules, r.err = r.parse(running[i].wait())
		}
	}
	return readings, readings[0].err
}

func (p *family) parse(text string, err error) (ruleset, error) {
	if err != nil {
		return nil, fmt.Errorf("cannot read firewall rules: %w", err)
	}
	return parseRuleset(text, p.chains(false))
}

// assess returns the first problem of what could be read, "" if all is as it should be; whether there is
// anything of ours; and the error of what couldn't be read.
func assess(readings []reading) (problem string, present bool, unread error) {
	for _, r := range readings {
		if r.err != nil {
			unread = errors.Join(unread, fmt.Errorf("%s%w", r.label, r.err))
			continue
		}
		if p := r.accepted.problem(r.rules, r.want); p != "" && problem == "" {
			problem = r.label + p
		}
		present = present || r.rules.present(r.want)
	}
	return problem, present, unread
}

// restore has each family's restore program carry out the text that render makes of its reading, side by
// side; none where that is "".
func (f *Firewall) restore(ctx context.Context, readings []reading, render func(reading) string) error {
	running := make([]*process, len(readings))
	for i, r := range readings {
		if r.err != nil {
			continue
		}
		if text := render(r); text != "" {
			running[i] = start(ctx, text, r.programs.restore, "--noflush", "-w", fmt.Sprint(lockTimeout))
		}
	}
	var errs []error
	for i, p := range running {
		if p == nil {
			continue
		}
		if _, err := p.wait(); err != nil {
			errs = append(errs, fmt.Errorf("%s%w", readings[i].label, err))
		}
	}
	return errors.Join(errs...)
}

// forgetForms forgets how iptables prints rules: the next installation may be another program's.
func (f *Firewall) forgetForms() {
	f.ipv4.accepted = accepted{}
	if f.ipv6 != nil {
		f.ipv6.accepted = accepted{}
	}
}
