package service

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"gangway/service/plan"
	"gangway/service/store"
	"gangway/service/vnet"
)

// passState is what one pass leaves for the next: nothing of what was applied, only what
// was seen and when to look again.
type passState struct {
	// first: nothing has been observed yet, or nothing of it could be put right.
	first bool
	// suspect: an operation failed whose lack the machine doesn't show, so that the next pass
	// has to look as a first one does.
	suspect bool
	// renumbered has the networks that were renumbered, until all of it succeeded and
	// subscribers were told.
	renumbered map[string]vnet.Renumbered
	// shutdown: nothing is to run any more.
	shutdown bool
	recheck  time.Duration // by when the observation changes by itself, 0 if never
	failures int           // passes in a row in which something failed
	moored   string
	switched *vnet.Switch  // a change of uplink that is to be reported when the pass is over
	seen     vnet.Observed // the last observation
}

// nextPass is how long to wait for a poke before passing anyway.
func (s *Service) nextPass() time.Duration {
	wait := resync
	if s.state.recheck > 0 {
		wait = min(wait, s.state.recheck)
	}
	if s.state.failures > 0 {
		wait = min(wait, min(30*time.Second, 250*time.Millisecond<<min(s.state.failures, 10)))
	}
	return wait
}

// maxRounds bounds how often a pass repeats itself until it has nothing left to do.
const maxRounds = 4

// reconcile makes the machine what is wanted: observe, plan, apply, publish, until a plan
// is empty. The errors are by network, "" for those that concern all.
func (s *Service) reconcile(ctx context.Context) map[string]error {
	detected := time.Duration(s.pokedAt.Swap(0))
	if detected == 0 {
		detected = s.monotonic()
	}
	errs := map[string]error{}
	for round := 0; round < maxRounds; round++ {
		select { // pokes until now are answered by the observation to come
		case <-s.poked:
			if at := s.pokedAt.Swap(0); at != 0 {
				detected = time.Duration(at)
			}
		default:
		}
		begun := s.monotonic()
		want := s.want()
		have, blind, err := s.observe(ctx, want)
		if err != nil {
			errs[""] = err
			break
		}
		observed := s.monotonic()
		result := plan.Plan(want, have)
		planned := s.monotonic()
		report := s.apply(ctx, result)
		s.log.Debug("pass", "observing", observed-begun, "planning", planned-observed, "applying", s.monotonic()-planned, "ops", len(result.Ops))
		report.detected = detected
		if blind != nil {
			report.errs[""] = errors.Join(blind, report.errs[""])
		}
		for network, err := range report.errs {
			errs[network] = err
		}
		last := len(result.Ops) == 0 || len(report.errs) > 0 || round == maxRounds-1
		s.finish(want, have, result, report, last)
		if last {
			break
		}
	}
	if len(errs) == 0 {
		s.state.failures = 0
		return errs
	}
	s.state.failures++
	for network, err := range errs {
		if !errors.Is(err, context.Canceled) {
			s.log.Error("pass failed", "network", network, "error", err)
		}
	}
	return errs
}

// want puts together what the definitions, commands and memory ask for.
func (s *Service) want() plan.Want {
	memory := s.rooms.Store.Memory()
	want := plan.Want{UplinkPrefixes: memory.UplinkPrefixes, NeverShared: memory.NeverShared, Seed: s.rooms.Store.Seed()}
	for _, name := range s.names() {
		d := s.definitions[name]
		w := plan.WantedNetwork{Name: name, Settings: d.Settings, Active: s.wantsActive(d),
			Remembered: memory.Subnets[name], Remembered6: memory.Prefixes[name], Ports: s.runtime.Ports[name]}
		if d.Problem != nil {
			w.Problem = d.Problem.Error()
		}
		want.Networks = append(want.Networks, w)
	}
	return want
}

func (s *Service) wantsActive(d store.Definition) bool {
	if s.state.shutdown {
		return false
	}
	if started, said := s.runtime.Started[d.Name]; said {
		return started
	}
	return d.Settings.Autostart
}

func (s *Service) names() []string {
	names := make([]string, 0, len(s.definitions))
	for name := range s.definitions {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// observe looks at everything afresh. The kernel comes first, since uplinks are read
// against it; the rest side by side. When the firewall or the servers can't be looked at,
// blind says why, and the pass does what it can without.
func (s *Service) observe(ctx context.Context, want plan.Want) (have vnet.Observed, blind, err error) {
	have.First = s.state.first || s.state.suspect
	keys := plan.SysctlKeys(want, &s.state.seen)
	if have.Kernel, err = s.rooms.Kernel.Observe(ctx, keys); err != nil {
		return have, nil, fmt.Errorf("cannot observe the kernel: %w", err)
	}
	var wg sync.WaitGroup
	var filter, servers, gate error
	wg.Go(func() { have.Uplinks, err = s.rooms.Uplinks.Read(ctx, &have.Kernel) })
	wg.Go(func() { have.Firewall, filter = s.rooms.Firewall.Observe(ctx) })
	wg.Go(func() { have.Servers, have.Leases, servers = s.rooms.Servers.Observe(ctx) })
	wg.Go(func() { have.Gate, gate = s.rooms.Gate.Observe(ctx) })
	wg.Wait()
	// Something changed since the dump, or an uplink came whose settings weren't asked for: it is cheap to
	// look again.
	wanted := plan.SysctlKeys(want, &have)
	if err == nil && (s.pokedAt.Load() != 0 || lacks(keys, wanted)) {
		if newer, e := s.rooms.Kernel.Observe(ctx, wanted); e == nil {
			have.Kernel, have.Uplinks = newer, s.rooms.Uplinks.Again(&newer)
		}
	}
	var heard error
	if err == nil {
		have.NDP, heard = s.rooms.NDP.Observe(ctx, &have.Kernel, have.Uplinks.List)
	}
	if heard != nil {
		have.NDP = s.state.seen.NDP // what is forgotten here would be withdrawn from guests
	}
	s.state.recheck = have.Uplinks.Recheck
	have.BlindFirewall, have.BlindServers = filter != nil, servers != nil
	if have.BlindServers { // nobody's lease ended because we couldn't look
		have.Leases = s.state.seen.Leases
	}
	return have, errors.Join(filter, servers, gate, heard), err
}

// lacks tells whether keys has not all of those wanted.
func lacks(keys, wanted []string) bool {
	return slices.ContainsFunc(wanted, func(k string) bool { return !slices.Contains(keys, k) })
}

// applied is what came of a plan's operations.
type applied struct {
	errs         map[string]error // by network, "" for all
	detected     time.Duration
	natDone      time.Duration // when the last operation on links and packet filter for IPv4 was done
	flowsFlushed int
	ipv6Done     time.Duration // when the last operation on what guests know of IPv6 was done, 0 if there was none
	withdrawn    []netip.Prefix
	announced    []netip.Prefix
	suspect      bool // see passState
}

// apply hands each run of operations for one room to that room, in order.
func (s *Service) apply(ctx context.Context, result plan.Result) applied {
	report := applied{errs: map[string]error{}}
	rooms := map[plan.Room]Room{plan.LinkRoom: s.rooms.Kernel, plan.FirewallRoom: s.rooms.Firewall,
		plan.ServerRoom: s.rooms.Servers, plan.StoreRoom: s.rooms.Store, plan.NDPRoom: s.rooms.NDP, plan.GateRoom: s.rooms.Gate}
	ops := result.Ops
	if len(ops) > 0 {
		s.log.Info("plan", "ops", texts(ops))
	}
	for len(ops) > 0 {
		n := 1
		ipv6 := plan.ForIPv6(ops[0])
		for n < len(ops) && ops[n].Room() == ops[0].Room() && plan.ForIPv6(ops[n]) == ipv6 {
			n++
		}
		begun := s.monotonic()
		outcomes := rooms[ops[0].Room()].Apply(ctx, ops[:n])
		s.log.Debug("applied", "first", ops[0].String(), "ops", n, "took", s.monotonic()-begun)
		for i, outcome := range outcomes {
			if outcome.Err != nil {
				network := plan.Concerns(ops[i], result.Networks)
				report.errs[network] = errors.Join(report.errs[network], outcome.Err)
			}
			switch op := ops[i].(type) {
			case plan.FlushFlows:
				report.flowsFlushed += outcome.Count
				report.suspect = report.suspect || outcome.Err != nil
			case plan.BouncePort:
				report.suspect = report.suspect || outcome.Err != nil
			case plan.Withdraw:
				for _, r := range op.Routers {
					report.withdrawn = append(report.withdrawn, r.Prefixes...)
				}
			case plan.Announce:
				report.suspect = report.suspect || outcome.Err != nil
				report.announced = append(report.announced, prefixesOf(result, op.Network)...)
			}
		}
		switch r := ops[0].Room(); {
		case r == plan.NDPRoom:
			report.ipv6Done = s.monotonic()
		case !ipv6 && (r == plan.LinkRoom || r == plan.FirewallRoom):
			report.natDone = s.monotonic()
		}
		ops = ops[n:]
	}
	if report.natDone == 0 {
		report.natDone = s.monotonic()
	}
	return report
}

func prefixesOf(result plan.Result, network string) []netip.Prefix {
	i := slices.IndexFunc(result.Networks, func(d plan.Decision) bool { return d.Name == network })
	if i < 0 {
		return nil
	}
	return result.Networks[i].IPv6Prefixes
}

func texts(ops []plan.Op) []string {
	list := make([]string, len(ops))
	for i, op := range ops {
		list[i] = op.String()
	}
	return list
}

// finish publishes what a round came to; last tells that the pass is over.
func (s *Service) finish(want plan.Want, have vnet.Observed, result plan.Result, report applied, last bool) {
	before := s.Snapshot()
	after := snapshotOf(want, have, result, report.errs)
	events := s.events(before, after, result, report)
	events = append(events, s.switched(result, report, last)...)
	s.state.first = len(report.errs) > 0 && s.state.first
	s.state.suspect = report.suspect
	s.state.moored = result.Moored
	s.state.seen = have
	if len(events) > 0 || !equal(before, after) {
		s.publish(after, events)
	}
}
