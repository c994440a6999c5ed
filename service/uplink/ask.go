package uplink

import (
	"context"
	"maps"
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

// places are objects of NetworkManager, with the interface that matters of each.
type places map[godbus.ObjectPath]string

// getObjects reads those of NetworkManager's objects that matter for the kernel's links: itself,
// its DNS, the devices of links that may be uplinks, the active connections, and their
// IP configurations. Those that mattered last time (known) are asked along with the first
// question, so that one round trip does unless something came: NetworkManager has other things
// to do in the very moment in which the uplink changes, and each round waits for it. A path
// is never used for another object later. When an answer doesn't come for patience, what is still to
// come is returned.
func getObjects(ctx context.Context, bus *godbus.Conn, k *vnet.Kernel, known places) (objects, places, <-chan *godbus.Call, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	a := &asker{bus: bus, timeout: timer.C}

	manager, dns := propertiesOf(nmPath, nm.NetworkManagerInterface), propertiesOf(dnsPath, nm.DnsManagerInterface)
	first := []*question{manager, dns}
	s := surveyOf(k)
	for _, l := range k.Links {
		if s.isCandidate(l) {
			first = append(first, &question{path: nmPath, method: byInterface, args: []any{l.Name}})
		}
	}
	lookups := first[2:]
	asked := map[godbus.ObjectPath]*question{nmPath: manager, dnsPath: dns}
	for path, iface := range known {
		asked[path] = propertiesOf(path, iface)
		first = append(first, asked[path])
	}
	if !a.round(ctx, first) {
		return nil, nil, a.pending, ctx.Err()
	}
	if manager.call.Err != nil {
		return nil, nil, nil, manager.call.Err
	}
	relevant := places{}
	want := func(path godbus.ObjectPath, iface string) {
		if path != "" && path != "/" {
			relevant[path] = iface
		}
	}
	for _, path := range get[[]godbus.ObjectPath](answer[properties](manager), nm.NetworkManagerPropertyActiveConnections) {
		want(path, nm.ActiveConnectionInterface)
	}
	for _, q := range lookups {
		want(answer[godbus.ObjectPath](q), nm.DeviceInterface)
	}
	for range 2 { // devices and connections, then what these refer to
		var more []*question
		for path, iface := range relevant {
			if asked[path] == nil {
				asked[path] = propertiesOf(path, iface)
				more = append(more, asked[path])
			}
		}
		if !a.round(ctx, more) {
			return nil, nil, a.pending, ctx.Err()
		}
		for path := range maps.Clone(relevant) {
			p := answer[properties](asked[path])
			want(get[godbus.ObjectPath](p, "Ip4Config"), nm.IP4ConfigInterface)
			want(get[godbus.ObjectPath](p, "Ip6Config"), nm.IP6ConfigInterface)
			if relevant[path] == nm.DeviceInterface {
				want(get[godbus.ObjectPath](p, "Dhcp6Config"), nm.DHCP6ConfigInterface)
			}
		}
	}
	all := objects{nmPath: {nm.NetworkManagerInterface: answer[properties](manager)},
		dnsPath: {nm.DnsManagerInterface: answer[properties](dns)}}
	for path, iface := range relevant {
		if q := asked[path]; q != nil {
			all[path] = map[string]properties{iface: answer[properties](q)}
		}
	}
	return all, relevant, nil, nil
}
