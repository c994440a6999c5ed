package servicetest

import (
	"errors"
	"fmt"
	"time"

	"gangway/service/plan"
)

// ErrKilled is what every room answers after the process was killed, until Revive.
var ErrKilled = errors.New("the process was killed")

// ErrInjected is the error of an operation that was told to fail.
var ErrInjected = errors.New("injected failure")

type fault struct {
	count   int // operations so far
	fail    func(n int, op plan.Op) bool
	killAt  int // before this operation, 0 for never
	midway  bool
	dead    bool
	observe map[plan.Room]error
	slow    time.Duration
}

// Fail makes those operations fail, without any effect, for which f says so; n counts
// operations from 1 since this call. A nil f ends it.
func (m *Machine) Fail(f func(n int, op plan.Op) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault.fail, m.fault.count = f, 0
}

// FailObserve makes the room's Observe fail with err, nil ends it.
func (m *Machine) FailObserve(room plan.Room, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fault.observe == nil {
		m.fault.observe = map[plan.Room]error{}
	}
	m.fault.observe[room] = err
}

// SetOpTime has each operation take that long.
func (m *Machine) SetOpTime(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault.slow = d
}

// Observes returns how often the kernel was observed since the machine was made.
func (m *Machine) Observes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.observes
}

// KillAfter lets n more operations be applied and none after them. Midway, the
// first of those that aren't is left half done, where an operation has more than one step.
func (m *Machine) KillAfter(n int, midway bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault.count, m.fault.killAt, m.fault.midway = 0, n+1, midway
}

// Killed tells whether the process was killed.
func (m *Machine) Killed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fault.dead
}

// Revive ends all faults: a new process may begin.
func (m *Machine) Revive() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = fault{}
	clear(m.serving) // what only a process knew
}

// Count returns how many operations were tried since the last Fail, KillAfter or Revive.
func (m *Machine) Count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fault.count
}

// Log returns the operations that were applied, in order, and begins anew.
func (m *Machine) Log() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	log := m.log
	m.log = nil
	return log
}

// admit says whether the operation may be applied; m.mu is held.
func (m *Machine) admit(op plan.Op) error {
	if m.fault.dead {
		return ErrKilled
	}
	m.fault.count++
	if m.fault.killAt != 0 && m.fault.count >= m.fault.killAt {
		m.fault.dead = true
		if m.fault.midway {
			m.applyHalf(op)
		}
		return ErrKilled
	}
	if m.fault.fail != nil && m.fault.fail(m.fault.count, op) {
		return fmt.Errorf("cannot %s: %w", op, ErrInjected)
	}
	return nil
}

// observable returns the error that the room's Observe has to return; m.mu is held.
func (m *Machine) observable(room plan.Room) error {
	if m.fault.dead {
		return ErrKilled
	}
	return m.fault.observe[room]
}

// apply runs the operations of one room.
func (m *Machine) apply(ops []plan.Op, do func(plan.Op) (int, error)) []plan.Outcome {
	m.mu.Lock()
	slow := m.fault.slow
	m.mu.Unlock()
	time.Sleep(slow * time.Duration(len(ops))) // not under the lock: others may look meanwhile
	m.mu.Lock()
	defer m.mu.Unlock()
	outcomes := make([]plan.Outcome, len(ops))
	for i, op := range ops {
		err := m.admit(op)
		if err == nil {
			outcomes[i].Count, err = do(op)
			if err != nil {
				err = fmt.Errorf("cannot %s: %w", op, err)
			} else {
				m.log = append(m.log, op.String())
			}
		}
		outcomes[i].Err = err
	}
	return outcomes
}
