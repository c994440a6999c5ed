package ndp

import "context"

// Watch pokes when what Observe shows has changed by itself: a router or prefix is new, gone or over, an uplink
// was listened to for long enough, a guest whose bridge serves it has an address or lost it, the two hours of a withdrawal are over. It returns nil when ctx is done.
func (r *Room) Watch(ctx context.Context, poke func(reason string)) error {
	defer r.addWatcher(poke)()
	select {
	case <-ctx.Done():
	case <-r.closing:
	}
	return nil
}

func (r *Room) addWatcher(poke func(string)) (remove func()) {
	r.watching.Lock()
	defer r.watching.Unlock()
	id := r.nextWatcherID
	r.nextWatcherID++
	r.watchers[id] = poke
	return func() {
		r.watching.Lock()
		defer r.watching.Unlock()
		delete(r.watchers, id)
	}
}

func (r *Room) poke(reason string) {
	r.watching.Lock()
	defer r.watching.Unlock()
	for _, poke := range r.watchers {
		poke(reason)
	}
}
