package uplink

import (
	"context"
	"time"

	nm "github.com/Wifx/gonetworkmanager/v3"
	godbus "github.com/godbus/dbus/v5"

	"gangway/service/vnet"
)

const (
	getAll = "org.freedesktop.DBus.Properties.GetAll"
	// byInterface returns the device of an interface.
	byInterface = nm.NetworkManagerGetDeviceByIpIface
)

// question is one call to NetworkManager and, afterwards, its answer.
type question struct {
	path   godbus.ObjectPath
	method string
	args   []any
	call   *godbus.Call
}

func propertiesOf(path godbus.ObjectPath, iface string) *question {
	return &question{path: path, method: getAll, args: []any{iface}}
}

// asker asks NetworkManager within one reading: questions of a round go out together and
// are answered in one round trip. Whole dumps (GetManagedObjects) would be simpler and as
// fast for a laptop at rest, but grow with every interface that isn't the host's way out:
// with two hundred bridges they take a tenth of a second to decode.
type asker struct {
	bus     *godbus.Conn
	timeout <-chan time.Time
	// pending is the answer that didn't come in time.
	pending <-chan *godbus.Call
}

// round asks and waits for all answers; false when they didn't come in time. The calls must
// not be cancelled, or godbus would forget them.
func (a *asker) round(ctx context.Context, list []*question) bool {
	for _, q := range list {
		q.call = a.bus.Object(nmName, q.path).Go(q.method, godbus.FlagNoAutoStart, make(chan *godbus.Call, 1), q.args...)
	}
	for _, q := range list {
		select {
		case <-q.call.Done:
		case <-a.timeout:
			a.pending = q.call.Done
			return false
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// answer returns the single value of an answer, the zero value when there is none of that
// type: objects come and go between rounds, and what is gone is absent.
func answer[T any](q *question) T {
	var none T
	if q.call == nil || q.call.Err != nil || len(q.call.Body) != 1 {
		return none
	}
	// Taken as it is: Store would copy all of it.
	value, _ := q.call.Body[0].(T)
	return value
}

// getObjects reads those of NetworkManager's objects that matter for the kernel's links: itself,
// its DNS, the devices of links that may be uplinks, the active connections, and their
// IP configurations. When an answer doesn't come for patience, what is still to come is
// returned.
func getObjects(ctx context.Context, bus *godbus.Conn, k *vnet.Kernel) (objects, <-chan *godbus.Call, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	a := &asker{bus: bus, timeout: timer.C}
	all := objects{}
	take := func(q *question) properties {
		p := answer[properties](q)
		if p != nil {
			all[q.path] = map[string]properties{q.args[0].(string): p}
		}
		return p
	}

	manager, dns := propertiesOf(nmPath, nm.NetworkManagerInterface), propertiesOf(dnsPath, nm.DnsManagerInterface)
	first := []*question{manager, dns}
	s := surveyOf(k)
	for _, l := range k.Links {
		if s.isCandidate(l) {
			first = append(first, &question{path: nmPath, method: byInterface, args: []any{l.Name}})
		}
	}
	if !a.round(ctx, first) {
		return nil, a.pending, ctx.Err()
	}
	if manager.call.Err != nil {
		return nil, nil, manager.call.Err
	}
	root := take(manager)
	take(dns)

	var second []*question
	for _, path := range get[[]godbus.ObjectPath](root, nm.NetworkManagerPropertyActiveConnections) {
		second = append(second, propertiesOf(path, nm.ActiveConnectionInterface))
	}
	for _, q := range first[2:] {
		if path := answer[godbus.ObjectPath](q); path != "" {
			second = append(second, propertiesOf(path, nm.DeviceInterface))
		}
	}
	if !a.round(ctx, second) {
		return nil, a.pending, ctx.Err()
	}
	var third []*question
	asked := map[godbus.ObjectPath]bool{"": true, "/": true}
	for _, q := range second {
		p := take(q)
		for property, iface := range map[string]string{"Ip4Config": nm.IP4ConfigInterface, "Ip6Config": nm.IP6ConfigInterface} {
			if path := get[godbus.ObjectPath](p, property); !asked[path] {
				asked[path] = true
				third = append(third, propertiesOf(path, iface))
			}
		}
	}
	if !a.round(ctx, third) {
		return nil, a.pending, ctx.Err()
	}
	for _, q := range third {
		take(q)
	}
	return all, nil, nil
}
