package firewall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"

	"golang.org/x/sys/unix"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// Options configure a Firewall.
type Options struct {
	// Log gets what is worth telling; slog.Default() if nil.
	Log *slog.Logger
	// Program is the name or path of the iptables program, "" for iptables as found in PATH.
	// Program-save and Program-restore must be there, too, and, where the kernel has IPv6, the same of
	// the name with ip6tables in it.
	Program string
	// RuntimeDir (/run/gangway) is where it is remembered, in firewall.json, which tables of
	// nf_tables weren't there before our chains, so that RemoveFirewall, of this process or a
	// later one, removes them, too. It need not outlive a boot, and is for one network
	// namespace. "" for no memory: then tables stay.
	RuntimeDir string
}

// Firewall observes and changes our part of the packet filter. Its methods may be called from
// different goroutines, one after the other.
type Firewall struct {
	log    *slog.Logger
	noIPv6 error // why ipv6 is nil

	mu         sync.Mutex // guards all below, and is held during an Observe or an Apply
	ipv4, ipv6 *family
	netlink    *conn
	seen       look
	watched    watched
	memory     memory
}

// look is what was last seen of the rules.
type look struct {
	// valid is set when generation, of nftables, bridged and ipv6 are what it was seen with.
	valid         bool
	generation    uint32
	bridged, ipv6 bool
	problem       string
	present       bool
}

// New finds the programs and kernel parts that the firewall needs; the error names one that
// is missing. The Firewall belongs to the network namespace of the calling thread.
func New(options Options) (*Firewall, error) {
	f := &Firewall{log: options.Log}
	if f.log == nil {
		f.log = slog.Default()
	}
	name := options.Program
	if name == "" {
		name = "iptables"
	}
	if err := f.findFamilies(name); err != nil {
		return nil, err
	}
	var err error
	if f.netlink, err = openConn(); err != nil {
		return nil, err
	}
	if err := f.netlink.checkSetType(); err != nil {
		f.netlink.close()
		return nil, err
	}
	f.memory = loadMemory(options.RuntimeDir, f.log)
	return f, nil
}

// Close closes the sockets. What is in the kernel stays.
func (f *Firewall) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.netlink.close()
}

// Observe looks at our chains, jumps, sets, guards and the filter of what is routed. With the nf_tables backend iptables-save is run
// only when the ruleset has changed since the last look. What keeps IPv6 rules from being read is a
// problem, not an error.
func (f *Firewall) Observe(ctx context.Context) (vnet.Firewall, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	generation, err := f.generation()
	if err != nil {
		return vnet.Firewall{}, err
	}
	if err := f.look(ctx, generation); err != nil {
		return vnet.Firewall{}, err
	}
	if err := f.lookAtTables(generation); err != nil {
		return vnet.Firewall{}, err
	}
	observed := vnet.Firewall{
		Chains:  f.seen.problem == "",
		Problem: f.seen.problem,
		Present: f.seen.present || f.watched.present || f.ownsTables(), // killed in between, they would stay
		Sets:    map[string][]vnet.SetEntry{},
		Guards:  maps.Clone(f.watched.digests),
		Forward: f.watched.forward.digest(f.seen.ipv6, f.seen.bridged),
	}
	for _, name := range setNames(f.seen.ipv6) {
		entries, ok, err := f.netlink.listSet(name)
		if err != nil {
			return vnet.Firewall{}, err
		}
		if ok {
			observed.Sets[name] = entries
			observed.Present = true
		}
	}
	return observed, nil
}

// look brings seen up to date; generation was asked for a moment ago.
func (f *Firewall) look(ctx context.Context, generation uint32) error {
	bridged, err := hasBridgeNetfilter()
	if err != nil {
		return err
	}
	ipv6, err := hasIPv6()
	if err != nil {
		return err
	}
	if f.seen.valid && f.usesNftables() && f.seen.generation == generation && f.seen.bridged == bridged && f.seen.ipv6 == ipv6 {
		return nil
	}
	f.seen.valid = false
	readings, err := f.read(ctx, bridged)
	if err != nil {
		return err
	}
	// A change between the question for the generation and the reading shows as another
	// generation the next time.
	f.seen = newLook(generation, bridged, readings)
	return nil
}

func newLook(generation uint32, bridged bool, readings []reading) look {
	l := look{generation: generation, bridged: bridged, ipv6: len(readings) > 1}
	var unread error
	l.problem, l.present, unread = assess(readings)
	l.valid = unread == nil
	if l.problem == "" && unread != nil {
		l.problem = unread.Error()
	}
	return l
}

// generation returns the number of the nftables ruleset, 0 where the kernel has no nf_tables and no
// program of ours needs it.
func (f *Firewall) generation() (uint32, error) {
	g, err := f.netlink.generation()
	if err != nil && !f.ipv4.nft && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)) {
		return 0, nil
	}
	return g, err
}

// Apply carries out operations of the firewall room, in order, each whatever became of those
// before it. The outcomes correspond to ops.
func (f *Firewall) Apply(ctx context.Context, ops []plan.Op) []plan.Outcome {
	f.mu.Lock()
	defer f.mu.Unlock()
	outcomes := make([]plan.Outcome, len(ops))
	for i, op := range ops {
		o := &outcomes[i]
		switch op := op.(type) {
		case plan.InstallChains:
			o.Err = f.install(ctx)
		case plan.RemoveFirewall:
			o.Err = f.remove(ctx)
		case plan.AddSetEntry:
			o.Err = f.netlink.addEntry(op.Set, op.Entry)
		case plan.DeleteSetEntry:
			o.Err = f.netlink.deleteEntry(op.Set, op.Entry)
		case plan.SetGuard:
			o.Err = f.setGuard(op.Spec)
		case plan.DeleteGuard:
			o.Err = f.deleteGuard(op.Network)
		case plan.SetForward:
			o.Err = f.setForward(op.Spec)
		case plan.DeleteForward:
			o.Err = f.deleteForward()
		case plan.FlushFlows:
			o.Count, o.Err = f.flushFlows(op)
		default:
			o.Err = fmt.Errorf("cannot carry out %q: not an operation of the firewall", op)
		}
	}
	return outcomes
}
