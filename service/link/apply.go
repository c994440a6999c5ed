package link

import (
	"context"
	"fmt"

	"gangway/service/plan"
)

// Apply carries the operations out in order, each for itself: the outcomes are as many as
// ops, and one that fails doesn't keep the others from being tried. Once ctx is done, the
// rest fails with its error. Errors name the object, and the kernel's reason where it gives one.
//
// Ports that are bounced stay down until all operations are done and BounceTime has
// passed; Apply returns when they are up again.
func (k *Kernel) Apply(ctx context.Context, ops []plan.Op) []plan.Outcome {
	k.mu.Lock()
	defer k.mu.Unlock()
	outcomes := make([]plan.Outcome, len(ops))
	var down bounce
	for i := 0; i < len(ops); i++ {
		op := ops[i]
		if err := ctx.Err(); err != nil {
			outcomes[i].Err = fmt.Errorf("cannot %s: %w", op, err)
			continue
		}
		if n := k.applyMemory(ops[i:], outcomes[i:]); n > 0 {
			i += n - 1
			continue
		}
		c, err := k.connect()
		if err != nil {
			outcomes[i].Err = err
			continue
		}
		outcomes[i].Err = k.apply(c, op, i, &down)
	}
	k.endBounce(ctx, down, outcomes)
	return outcomes
}

func (k *Kernel) apply(c *conn, op plan.Op, i int, down *bounce) error {
	switch o := op.(type) {
	case plan.CreateBridge:
		return c.createBridge(o)
	case plan.DeleteBridge:
		return c.deleteBridge(o)
	case plan.SetGroup:
		return c.setGroup(o)
	case plan.SetLinkUp:
		return c.setLinkUp(o)
	case plan.SetMTU:
		return c.setMTU(o)
	case plan.SetMAC:
		return c.setMAC(o)
	case plan.SetMulticastSnooping:
		return c.setMulticastSnooping(o)
	case plan.AddAddress:
		return c.addAddress(o)
	case plan.DeleteAddress:
		return c.deleteAddress(o)
	case plan.AddPort:
		return c.addPort(o)
	case plan.RemovePort:
		return c.removePort(o)
	case plan.IsolatePort:
		return c.isolatePort(o)
	case plan.CreatePair:
		return c.createPair(o)
	case plan.JoinBridge:
		return c.joinBridge(o)
	case plan.LeaveBridge:
		return c.leaveBridge(o)
	case plan.FlushPort:
		return c.flushPort(o)
	case plan.SetLinkDown:
		return c.setLinkDown(o)
	case plan.DeletePair:
		return c.deletePair(o)
	case plan.BouncePort:
		return c.beginBounce(o, i, down)
	case plan.AddRule:
		return c.addRule(o.Rule)
	case plan.DeleteRule:
		return c.deleteRule(o.Rule)
	case plan.ReplaceRoute:
		return c.replaceRoute(o)
	case plan.DeleteRoute:
		return c.deleteRoute(o.Route)
	case plan.AddProxy:
		return c.addProxy(o)
	case plan.DeleteProxy:
		return c.deleteProxy(o)
	case plan.SetSysctl:
		return writeSysctl(o.Key, o.Value)
	}
	return fmt.Errorf("cannot %s: not an operation of the link room", op)
}

// applyMemory carries out the sysctls to be borrowed, or those to be given back, that ops begin with, and returns how many
// they are.
func (k *Kernel) applyMemory(ops []plan.Op, outcomes []plan.Outcome) int {
	var errs []error
	if borrowed := leading[plan.BorrowSysctl](ops); len(borrowed) > 0 {
		errs = k.memory.borrow(borrowed)
	} else if returned := leading[plan.ReturnSysctl](ops); len(returned) > 0 {
		errs = k.memory.giveBack(returned)
	}
	for i, err := range errs {
		outcomes[i].Err = err
	}
	return len(errs)
}

// leading returns the operations of one kind that ops begin with.
func leading[T plan.Op](ops []plan.Op) []T {
	var list []T
	for _, op := range ops {
		o, ok := op.(T)
		if !ok {
			break
		}
		list = append(list, o)
	}
	return list
}
