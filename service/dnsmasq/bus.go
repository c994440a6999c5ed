package dnsmasq

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	godbus "github.com/godbus/dbus/v5"

	"gangway/service/vnet"
)

// BusNamePrefix and a label make the bus name of a network's server. The bus must let
// root own the names below it and call their owners, nobody else.
const BusNamePrefix = "org.gangway.Gangway1.dnsmasq"

// objectPath is the same in every dnsmasq, whatever its name.
const objectPath = godbus.ObjectPath("/uk/org/thekelleys/dnsmasq")

// busName returns the bus name of the network's server. dnsmasq uses it for the interface of
// its signals, too, which may not have a '-' (D-Bus Specification, Valid Names) on pain of
// libdbus's abort: whatever isn't a letter or digit is escaped as systemd escapes bus labels.
func busName(network string) string {
	var b strings.Builder
	b.WriteString(BusNamePrefix + ".")
	for i := 0; i < len(network); i++ {
		c := network[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' && i > 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}

// call calls a method of the network's server and waits for the answer.
func (r *Room) call(ctx context.Context, destination, network, method string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	// Without auto-start: nothing else may come by the name.
	return r.bus.Object(destination, objectPath).CallWithContext(ctx,
		busName(network)+"."+method, godbus.FlagNoAutoStart, args...).Err
}

// forgetServers has the network's server drop its upstreams, without waiting for the answer: the
// call that sets the new ones is on its heels. dnsmasq takes the same question from another
// client (or another port of the same) for one that is under way, and waits up to ten seconds
// for an upstream that a switch has cut off. It writes a new server over the old one's record,
// which keeps such questions; only a server that is dropped takes them along.
func (r *Room) forgetServers(ctx context.Context, network string) {
	// The answer is expected, though nobody reads it: dnsmasq gives one even when told not to, and
	// the bus would complain in the journal.
	r.bus.Object(busName(network), objectPath).GoWithContext(ctx, busName(network)+".SetServersEx",
		godbus.FlagNoAutoStart, make(chan *godbus.Call, 1), [][]string{})
}

// absent tells whether a call failed because nobody has the name.
func absent(err error) bool {
	var e godbus.Error
	return errors.As(err, &e) && (e.Name == "org.freedesktop.DBus.Error.ServiceUnknown" ||
		e.Name == "org.freedesktop.DBus.Error.NameHasNoOwner")
}

// serverArguments returns upstreams as SetServersEx takes them (dnsmasq's DBus-interface).
func serverArguments(upstreams []vnet.Upstream) [][]string {
	servers := make([][]string, 0, len(upstreams))
	for _, u := range upstreams {
		server := u.Address.String()
		if u.Interface != "" {
			server += "@" + u.Interface
		}
		servers = append(servers, append([]string{server}, u.Domains...))
	}
	return servers
}

// owners tells when names below BusNamePrefix get an owner.
type owners struct {
	bus     *godbus.Conn
	signals chan *godbus.Signal
	done    chan struct{}
	mu      sync.Mutex
	waiting map[string]chan string
}

var ownerMatch = []godbus.MatchOption{
	godbus.WithMatchSender("org.freedesktop.DBus"),
	godbus.WithMatchInterface("org.freedesktop.DBus"),
	godbus.WithMatchMember("NameOwnerChanged"),
	godbus.WithMatchArg0Namespace(BusNamePrefix),
}

func watchOwners(ctx context.Context, bus *godbus.Conn) (*owners, error) {
	o := &owners{bus: bus, signals: make(chan *godbus.Signal, 64), done: make(chan struct{}),
		waiting: map[string]chan string{}}
	bus.Signal(o.signals)
	go o.dispatch()
	if err := bus.AddMatchSignalContext(ctx, ownerMatch...); err != nil {
		bus.RemoveSignal(o.signals)
		close(o.done)
		return nil, fmt.Errorf("cannot watch the names of servers: %w", err)
	}
	return o, nil
}

func (o *owners) dispatch() {
	for {
		select {
		case <-o.done:
			return
		case s, ok := <-o.signals:
			if !ok {
				return // the connection is gone; who waits has a deadline
			}
			o.deliver(s)
		}
	}
}

// deliver sorts one of all the signals that come by the connection.
func (o *owners) deliver(s *godbus.Signal) {
	if s == nil || s.Sender != "org.freedesktop.DBus" || s.Name != "org.freedesktop.DBus.NameOwnerChanged" || len(s.Body) != 3 {
		return
	}
	name, _ := s.Body[0].(string)
	owner, _ := s.Body[2].(string)
	o.mu.Lock()
	defer o.mu.Unlock()
	if ch := o.waiting[name]; ch != nil && owner != "" {
		select {
		case <-ch: // an older owner that nobody has asked for yet
		default:
		}
		ch <- owner
	}
}

// expect returns a channel that gets the name's owners from now on, the latest at least.
func (o *owners) expect(name string) <-chan string {
	ch := make(chan string, 1)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting[name] = ch
	return ch
}

// close removes the match and the channel again.
func (o *owners) close() {
	_ = o.bus.RemoveMatchSignal(ownerMatch...) // fails only with the connection
	o.bus.RemoveSignal(o.signals)
	close(o.done)
}

// peerID returns the process id of a connection.
func (r *Room) peerID(ctx context.Context, owner string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	var pid uint32
	err := r.bus.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetConnectionUnixProcessID", 0, owner).Store(&pid)
	return int(pid), err
}
