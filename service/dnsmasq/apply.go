package dnsmasq

import (
	"context"
	"fmt"
	"sync"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// parallel is how many networks are worked on at once.
const parallel = 8

// Apply carries the operations out: those of one network in order, different networks at
// once. The outcomes are in the order of ops; a failed one doesn't keep others from being tried.
func (r *Room) Apply(ctx context.Context, ops []plan.Op) []plan.Outcome {
	outcomes := make([]plan.Outcome, len(ops))
	var networks []string
	indexes := map[string][]int{}
	starts := false
	for i, op := range ops {
		network, err := networkOf(op)
		if err != nil {
			outcomes[i].Err = err
			continue
		}
		if indexes[network] == nil {
			networks = append(networks, network)
		}
		indexes[network] = append(indexes[network], i)
		switch op.(type) {
		case plan.StartServer, plan.SetUpstreams: // the latter may have to start anew
			starts = true
		}
	}
	var names *owners
	if starts {
		var err error
		if names, err = watchOwners(ctx, r.bus); err != nil {
			for _, all := range indexes {
				for _, i := range all {
					outcomes[i].Err = err
				}
			}
			return outcomes
		}
		defer names.close()
	}
	slots := make(chan struct{}, parallel)
	var group sync.WaitGroup
	for _, network := range networks {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			for _, i := range indexes[network] {
				outcomes[i].Err = r.applyOne(ctx, names, ops[i])
			}
		})
	}
	group.Wait()
	return outcomes
}

func networkOf(op plan.Op) (string, error) {
	var network string
	switch op := op.(type) {
	case plan.StartServer:
		network = op.Spec.Network
	case plan.StopServer:
		network = op.Network
	case plan.SetHosts:
		network = op.Spec.Network
	case plan.SetUpstreams:
		network = op.Network
	case plan.ForgetLeases:
		network = op.Network
	default:
		return "", fmt.Errorf("cannot %s: not an operation of the server room", op)
	}
	// The name becomes a path.
	return network, vnet.ValidateNetworkName(network)
}

func (r *Room) applyOne(ctx context.Context, names *owners, op plan.Op) error {
	switch op := op.(type) {
	case plan.StartServer:
		return r.start(ctx, names, op.Spec)
	case plan.StopServer:
		return r.stop(op.Network)
	case plan.SetHosts:
		return r.setHosts(ctx, op.Spec)
	case plan.SetUpstreams:
		return r.setUpstreams(ctx, names, op.Network, op.Upstreams)
	case plan.ForgetLeases:
		return r.forgetLeases(op.Network)
	}
	return nil
}
