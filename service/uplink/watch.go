package uplink

import (
	"context"
	"errors"
	"fmt"
	"time"

	nm "github.com/Wifx/gonetworkmanager/v3"
	godbus "github.com/godbus/dbus/v5"
)

// Watch pokes, with the signal's or property's name, whenever NetworkManager tells something
// that may change a reading, and when it comes or goes; once also when the subscription is
// in force. It returns nil when ctx ends, and an error when the bus is lost or refuses. Signals
// that aren't from the owner of NetworkManager's name are dropped.
func (r *Reader) Watch(ctx context.Context, poke func(reason string)) error {
	if r.bus == nil {
		<-ctx.Done()
		return nil
	}
	signals := make(chan *godbus.Signal, 64)
	r.bus.Signal(signals)
	defer r.bus.RemoveSignal(signals)
	rules := matchRules()
	defer r.unsubscribe(rules)
	for _, rule := range rules {
		if err := r.bus.AddMatchSignalContext(ctx, rule...); err != nil {
			return watchError(ctx, err)
		}
	}
	w := watch{poke: poke, reload: make(chan struct{}, 1)}
	// Asked for after the subscription, so that no change of owner is missed.
	var err error
	if w.owner, err = r.nameOwner(ctx); err != nil {
		return watchError(ctx, err)
	}

	ctx, cancel := context.WithCancel(ctx)
	reloaded := make(chan struct{})
	go func() {
		defer close(reloaded)
		r.reloadProfiles(ctx, w.reload, poke)
	}()
	defer func() { cancel(); <-reloaded }()

	poke("watching NetworkManager")
	for {
		select {
		case <-ctx.Done():
			return nil
		case sig, ok := <-signals:
			if !ok {
				return watchError(ctx, errors.New("connection to the bus is lost"))
			}
			if !w.handle(sig) && w.forged == 1 {
				r.log.Warn("dropped a forged signal of NetworkManager", "sender", sig.Sender, "signal", sig.Name)
			}
		}
	}
}

func watchError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("cannot watch %q: %w", nmName, err)
}

// nameOwner returns the unique name of NetworkManager, "" if it isn't running.
func (r *Reader) nameOwner(ctx context.Context) (string, error) {
	var owner string
	err := r.bus.BusObject().CallWithContext(ctx, busName+".GetNameOwner", 0, nmName).Store(&owner)
	if isAbsent(err) {
		return "", nil
	}
	return owner, err
}

func (r *Reader) unsubscribe(rules [][]godbus.MatchOption) {
	// ctx has ended by now; the bus has not, or then there is nothing to take back.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, rule := range rules {
		if r.bus.RemoveMatchSignalContext(ctx, rule...) != nil {
			return
		}
	}
}

func matchRules() [][]godbus.MatchOption {
	from := func(iface, member string, more ...godbus.MatchOption) []godbus.MatchOption {
		return append([]godbus.MatchOption{
			godbus.WithMatchSender(nmName),
			godbus.WithMatchInterface(iface),
			godbus.WithMatchMember(member),
		}, more...)
	}
	rules := [][]godbus.MatchOption{
		{
			godbus.WithMatchSender(busName),
			godbus.WithMatchInterface(busName),
			godbus.WithMatchMember("NameOwnerChanged"),
			godbus.WithMatchArg(0, nmName),
		},
		from(nm.DeviceInterface, "StateChanged"),
		from(objectManager, "InterfacesAdded"),
		from(objectManager, "InterfacesRemoved"),
		from(nm.SettingsInterface, "NewConnection"),
		from(nm.SettingsInterface, "ConnectionRemoved"),
		from(nm.ConnectionInterface, "Updated"),
	}
	for iface := range watched {
		rules = append(rules, from(propertiesInterface, "PropertiesChanged",
			godbus.WithMatchPathNamespace(nmPath), godbus.WithMatchArg(0, iface)))
	}
	return rules
}

func (w *watch) requestReload() {
	select {
	case w.reload <- struct{}{}:
	default: // one is due anyway
	}
}

// reloadProfiles reads the profiles anew upon each request, beside the watch, which must not
// wait for it, and pokes.
func (r *Reader) reloadProfiles(ctx context.Context, requests <-chan struct{}, poke func(string)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-requests:
		}
		// Changes come in bursts; nothing here is urgent.
		select {
		case <-ctx.Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
		limited, cancel := context.WithTimeout(ctx, profilesPatience)
		list, err := readProfiles(limited, r.bus)
		cancel()
		switch {
		case err == nil:
			r.profiles.put(list)
			poke("profiles")
		case !isAbsent(err) && ctx.Err() == nil:
			r.log.Warn("cannot read profiles", "error", err)
		}
	}
}
