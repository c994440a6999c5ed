package firewall

import (
	"errors"
	"fmt"
	"strings"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// setForward puts the filter of what is routed in the place of an earlier one, which stands until then.
func (f *Firewall) setForward(spec plan.ForwardSpec) error {
	for _, names := range [][]string{spec.Hairpin, spec.Follow, spec.Plain} {
		for _, name := range names {
			if name == "" || len(name) > vnet.MaxInterfaceName || strings.ContainsRune(name, 0) {
				return fmt.Errorf("cannot filter what is routed: %q is not an interface name", name)
			}
		}
	}
	ipv6, err := hasIPv6()
	if err != nil {
		return err
	}
	bridged, err := hasBridgeNetfilter()
	if err != nil {
		return err
	}
	parts := []forwardPart{{forwardTable, tunnelFilter(spec), bothFamilies}}
	if ipv6 {
		parts = append(parts, forwardPart{forward6Table, bridgeFilter(spec, bridged), variantOf(bridged)})
	}
	return f.putForward(parts, spec.Digest())
}

// forwardPart is a part of the filter. variant tells which one of several, by what is written down with it.
type forwardPart struct {
	table   ownTable
	chain   ownChain
	variant string
}

const bothFamilies = "both"

// variantOf tells whether IPv6's part knows bridged frames.
func variantOf(bridged bool) string {
	if bridged {
		return "bridged"
	}
	return "routed"
}

// putForward puts all parts in place at once; where the kernel lacks what one takes, the other by itself, and the
// error says so.
func (f *Firewall) putForward(parts []forwardPart, digest string) error {
	err := f.putParts(parts, digest)
	if len(parts) > 1 && lacksExpression(err) {
		var errs []error
		for _, p := range parts {
			errs = append(errs, f.putParts([]forwardPart{p}, digest))
		}
		err = errors.Join(errs...)
	}
	if err != nil {
		return fmt.Errorf("cannot filter what is routed: %w", err)
	}
	return nil
}

func (f *Firewall) putParts(parts []forwardPart, digest string) error {
	var tables []ownTable
	for _, p := range parts {
		tables = append(tables, p.table)
	}
	return f.change(tables, func(b *batch, there []found) error {
		for i, p := range parts {
			err := there[i].put(b, []ownChain{p.chain}, nil, func(c ownChain, rule int) mark {
				return markOf(digest, forwardEdition(), p.variant, rule, len(c.rules))
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// deleteForward removes the filter.
func (f *Firewall) deleteForward() error {
	for _, table := range []ownTable{forwardTable, forward6Table} {
		if err := f.removeChains(table, []string{forwardFilterChain}); err != nil {
			return fmt.Errorf("cannot delete the filter of what is routed: %w", err)
		}
	}
	return nil
}

// removeForward removes its tables with all that is in them.
func (f *Firewall) removeForward() error {
	for _, table := range []ownTable{forwardTable, forward6Table} {
		if err := f.removeTable(table); err != nil {
			return fmt.Errorf("cannot remove the filter of what is routed: %w", err)
		}
	}
	return nil
}

// forwardLook is what was seen of the filter: the digests of its parts, "" for one that isn't whole, and whether
// the one of IPv6 knows bridged frames.
type forwardLook struct {
	both, ipv6 string
	bridged    bool
}

// digest returns that of the filter as a whole, "" if it isn't.
func (l forwardLook) digest(ipv6, bridged bool) string {
	if ipv6 && (l.ipv6 != l.both || l.bridged != bridged) {
		return ""
	}
	return l.both
}

func lookAtForward(both, ipv6 found) forwardLook {
	l := forwardLook{both: both.forward(bothFamilies)}
	for _, bridged := range []bool{false, true} {
		if digest := ipv6.forward(variantOf(bridged)); digest != "" {
			l.ipv6, l.bridged = digest, bridged
		}
	}
	return l
}

// forward returns the digest of the filter's part in the table, "" if it isn't whole or another variant.
func (f found) forward(variant string) string {
	c := f.chains[forwardFilterChain]
	digest := c.digest()
	if !f.ours || f.dormant || c.at != forwardHook || !c.has(digest, forwardEdition(), variant) {
		return ""
	}
	return digest
}
