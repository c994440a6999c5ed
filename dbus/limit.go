package dbus

import (
	"sync"
	"time"

	"gangway/service/vnet"
)

// Calls in progress. A call of which the tree is the answer takes microseconds; the bound only
// keeps a flood from piling up. The others may last minutes, each with a goroutine.
const (
	maxCallsSender = 512
	maxCallsAll    = 4096
	maxSlowSender  = 64
	maxSlowAll     = 1024
)

// limit bounds calls in progress, by sender and overall.
type limit struct {
	sender, all int

	mu    sync.Mutex
	count map[string]int
	total int
}

type limits struct{ calls, slow limit }

func newLimits() *limits {
	return &limits{
		calls: limit{sender: maxCallsSender, all: maxCallsAll, count: map[string]int{}},
		slow:  limit{sender: maxSlowSender, all: maxSlowAll, count: map[string]int{}},
	}
}

// begin counts a call in, unless there are too many; every begin without an error has its end.
func (l *limit) begin(sender string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.count[sender] >= l.sender:
		return vnet.Errorf(vnet.LimitExceeded, "%d calls of this client are in progress already", l.sender)
	case l.total >= l.all:
		return vnet.Errorf(vnet.LimitExceeded, "%d calls are in progress already", l.all)
	}
	l.count[sender]++
	l.total++
	return nil
}

func (l *limit) end(sender string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.count[sender]--; l.count[sender] == 0 {
		delete(l.count, sender)
	}
}

// activity knows when somebody last asked for something.
type activity struct {
	mu     sync.Mutex
	active int
	last   time.Time
}

func (a *activity) begin() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.active++
}

func (a *activity) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.active--
	a.last = time.Now()
}

func (a *activity) since() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.active > 0 {
		return time.Now()
	}
	return a.last
}
