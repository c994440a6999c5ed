package firewall

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink/nl"
)

// attempts is how often a change of the rules is tried when somebody else's changes, made
// between our reading and our writing, thwart it.
const attempts = 3

// install makes sets, chains and jumps what they should be. What is right isn't touched.
func (f *Firewall) install(ctx context.Context) error {
	ipv6, err := hasIPv6()
	if err != nil {
		return err
	}
	for _, name := range setNames(ipv6) {
		if err := f.netlink.createSet(name); err != nil {
			return err
		}
	}
	bridged, err := hasBridgeNetfilter()
	if err != nil {
		return err
	}
	f.seen.valid = false
	mended, thwarted := false, error(nil)
	for range attempts + 1 {
		generation, err := f.generation()
		if err != nil {
			return err
		}
		readings, err := f.read(ctx, bridged)
		if err != nil {
			return err
		}
		if err := f.settleTables(readings); err != nil {
			return err
		}
		if mended {
			for _, r := range readings {
				r.accepted.learn(r.rules, r.want)
			}
		}
		problem, _, unread := assess(readings)
		if problem == "" {
			f.seen = newLook(generation, bridged, readings)
			return unread
		}
		f.log.Debug("installing firewall chains", "problem", problem)
		if err := f.announceTables(readings); err != nil {
			return err
		}
		thwarted = f.mend(ctx, readings)
		mended = thwarted == nil
	}
	if thwarted == nil {
		thwarted = errors.New("another program changes them at the same time")
	}
	return fmt.Errorf("cannot install firewall chains: %w", thwarted)
}

// mend changes what differs from what is wanted. Where only jumps are gone, they are inserted and
// the chains, their counters included, left alone. Otherwise chains and jumps change in one transaction,
// for the time between them would be one without protection.
func (f *Firewall) mend(ctx context.Context, readings []reading) error {
	errs := []error{f.restore(ctx, readings, func(r reading) string {
		if _, only := r.goneJumps(); only {
			return ""
		}
		return r.accepted.renderInstall(r.rules, r.want)
	})}
	for _, r := range readings {
		gone, only := r.goneJumps()
		for _, c := range gone {
			if only {
				errs = append(errs, r.iptables.Insert(c.table, c.hook, 1, "-j", c.name))
			}
		}
	}
	return errors.Join(errs...)
}

// goneJumps returns the chains that no jump leads to, and whether nothing else is amiss.
func (r reading) goneJumps() (gone []chain, only bool) {
	only = true
	for _, c := range r.want {
		count, first := r.rules.jumps(c)
		switch {
		case !r.accepted.intact(r.rules, c), count > 0 && !first, count > 1:
			only = false
		case count == 0:
			gone = append(gone, c)
		}
	}
	return gone, only
}

// destroyPatience bounds how long a set may still be in use after its last rule has gone:
// the kernel frees rules of nftables some milliseconds after their removal.
const destroyPatience = 2 * time.Second

// remove takes away jumps, chains, guards, sets and tables of ours, and then the tables that came with them.
func (f *Firewall) remove(ctx context.Context) error {
	// First of all nobody may leave any more: translation goes before the chain that
	// forbids what isn't translated.
	for _, name := range setNames(true) {
		if err := f.netlink.flushSet(name); err != nil {
			return err
		}
	}
	f.seen.valid = false
	var thwarted, unsettled, unread error
	for range attempts {
		readings, err := f.read(ctx, false)
		if err != nil {
			return err
		}
		unsettled = f.settleTables(readings)
		var present bool
		if _, present, unread = assess(readings); !present {
			thwarted = nil
			break
		}
		thwarted = f.restore(ctx, readings, func(r reading) string { return renderRemove(r.rules, r.want) })
		if thwarted == nil {
			break
		}
	}
	if thwarted != nil {
		return fmt.Errorf("cannot remove firewall chains: %w", thwarted)
	}
	f.forgetForms()
	errs := []error{unread, unsettled, f.removeGuards(), f.removeForward()}
	deadline := time.Now().Add(destroyPatience)
	for _, name := range setNames(true) {
		errs = append(errs, f.destroy(ctx, name, deadline))
	}
	if err := errors.Join(errs...); err != nil {
		return err // while a rule uses a set, its table is in use; the next attempt may find it free
	}
	return f.removeTables()
}

// destroy destroys a set as soon as no rule refers to it any more.
func (f *Firewall) destroy(ctx context.Context, name string, deadline time.Time) error {
	for {
		err := f.netlink.destroySet(name)
		if !errors.Is(err, nl.IPSetError(nl.IPSET_ERR_BUSY)) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: a rule that isn't ours refers to it", err)
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}
