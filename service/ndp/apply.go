package ndp

import (
	"context"
	"errors"
	"fmt"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// Apply carries the operations out in order, each for itself: the outcomes are as many as ops, and
// one that fails doesn't keep the others from being tried. Count is how many ports were told.
// It doesn't wait for guests.
func (r *Room) Apply(ctx context.Context, ops []plan.Op) []plan.Outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	outcomes := make([]plan.Outcome, len(ops))
	recorded := 0 // how many of ops are on disk
	for i, op := range ops {
		if i > 0 && isTeach(ops[i-1]) && !isTeach(op) {
			r.record(outcomes[recorded:i])
			recorded = i
		}
		if err := ctx.Err(); err != nil {
			outcomes[i].Err = fmt.Errorf("cannot %s: %w", op, err)
			continue
		}
		outcomes[i] = r.apply(op)
	}
	r.record(outcomes[recorded:])
	return outcomes
}

func isTeach(op plan.Op) bool {
	_, ok := op.(plan.Teach)
	return ok
}

// record puts what operations came to on disk, with one write for all, for each waits for the disk: what guests
// were taught before anything tells them of it, all else after that. Those that are served hear what is new.
func (r *Room) record(outcomes []plan.Outcome) {
	taught := r.taught
	r.taught = nil
	if err := r.save(); err != nil {
		for i := range outcomes {
			outcomes[i].Err = errors.Join(outcomes[i].Err, err)
		}
		return
	}
	for _, n := range taught {
		r.review(n, r.now())
	}
}

func (r *Room) apply(op plan.Op) (o plan.Outcome) {
	var name string
	switch op := op.(type) {
	case plan.Teach:
		name = op.Network
	case plan.Withdraw:
		name = op.Network
	case plan.Announce:
		name = op.Network
	case plan.Forget:
		name = op.Network
	case plan.Serve:
		name = op.Spec.Network
	case plan.StopServing:
		name = op.Network
	default:
		o.Err = fmt.Errorf("cannot %s: not an operation of the neighbour discovery room", op)
		return o
	}
	if err := vnet.ValidateNetworkName(name); err != nil {
		o.Err = fmt.Errorf("cannot %s: %w", op, err)
		return o
	}
	switch op := op.(type) {
	case plan.Teach:
		o.Err = r.teach(op)
	case plan.Withdraw:
		o.Count, o.Err = r.withdraw(op)
	case plan.Announce:
		o.Count, o.Err = r.announce(op)
	case plan.Forget:
		o.Err = r.forget(op)
	case plan.Serve:
		o.Err = r.serve(op)
	case plan.StopServing:
		r.stopServing(op)
	}
	return o
}

// forget carries out plan.Forget.
func (r *Room) forget(op plan.Forget) error {
	if n := r.networks[op.Network]; n != nil {
		r.dirty = r.dirty || len(n.lessons) > 0
		delete(r.networks, op.Network)
		r.share()
		r.listenToGuests()
	}
	return nil
}
