package firewall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// Options configure a Firewall.
type Options struct {
	// Log gets what is worth telling; slog.Default() if nil.
	Log *slog.Logger
	// Program is the name or path of the iptables program, "" for iptables as found in PATH.
	// Program-save and Program-restore must be there, too.
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
	log      *slog.Logger
	programs programs

	mu       sync.Mutex // guards all below, and is held during an Observe or an Apply
	netlink  *conn
	accepted accepted
	seen     look
	memory   memory
}

// look is what was last seen of the rules.
type look struct {
	// valid is set when generation, of nftables, and bridged are what it was seen with.
	valid      bool
	generation uint32
	bridged    bool
	problem    string
	present    bool
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
	var err error
	if f.programs, err = findPrograms(name); err != nil {
		return nil, err
	}
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

// Observe looks at our chains, jumps and sets. With the nf_tables backend iptables-save is run
// only when the ruleset has changed since the last look.
func (f *Firewall) Observe(ctx context.Context) (vnet.Firewall, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.look(ctx); err != nil {
		return vnet.Firewall{}, err
	}
	observed := vnet.Firewall{
		Chains:  f.seen.problem == "",
		Problem: f.seen.problem,
		Present: f.seen.present || f.ownsTables(), // killed in between, they would stay
		Sets:    make(map[string][]vnet.SetEntry, len(plan.Sets())),
	}
	for _, name := range plan.Sets() {
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

// look brings seen up to date.
func (f *Firewall) look(ctx context.Context) error {
	bridged, err := hasBridgeNetfilter()
	if err != nil {
		return err
	}
	generation, err := f.generation()
	if err != nil {
		return err
	}
	if f.seen.valid && f.programs.nft && f.seen.generation == generation && f.seen.bridged == bridged {
		return nil
	}
	f.seen.valid = false
	rules, err := f.programs.read(ctx)
	if err != nil {
		return err
	}
	// A change between the question for the generation and the reading shows as another
	// generation the next time.
	want := chains(bridged)
	f.seen = look{true, generation, bridged, f.accepted.problem(rules, want), rules.present(want)}
	return nil
}

// generation returns the number of the nftables ruleset, 0 with the legacy backend.
func (f *Firewall) generation() (uint32, error) {
	if !f.programs.nft {
		return 0, nil
	}
	return f.netlink.generation()
}

// hasBridgeNetfilter tells whether br_netfilter is there, built in or loaded.
func hasBridgeNetfilter() (bool, error) {
	_, err := os.Stat("/proc/sys/net/bridge/bridge-nf-call-iptables")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, fmt.Errorf("cannot look for br_netfilter: %w", err)
	}
	return err == nil, nil
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
		case plan.FlushFlows:
			o.Count, o.Err = f.flushFlows(op)
		default:
			o.Err = fmt.Errorf("cannot carry out %q: not an operation of the firewall", op)
		}
	}
	return outcomes
}
