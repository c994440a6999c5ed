package bus

import (
	"fmt"
	"maps"
	"math/rand"
	"net/netip"
	"sync"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"gangway/dbus"
	"gangway/policy"
	"gangway/service/vnet"
)

// watcher collects our signals.
type watcher struct {
	t       testing.TB
	conn    *godbus.Conn
	signals chan *godbus.Signal
}

func (f *fixture) watch(uid int) *watcher {
	f.t.Helper()
	w := &watcher{f.t, f.client(uid), make(chan *godbus.Signal, 16)}
	w.conn.Signal(w.signals)
	must(f.t, w.conn.AddMatchSignal(godbus.WithMatchSender(dbus.BusName)))
	return w
}

// until returns the signals up to the one that last recognises, which is not among them.
func (w *watcher) until(last func(*godbus.Signal) bool) []*godbus.Signal {
	w.t.Helper()
	var list []*godbus.Signal
	for deadline := time.After(patience); ; {
		select {
		case s := <-w.signals:
			switch {
			case s.Sender == "org.freedesktop.DBus":
			case last(s):
				return list
			default:
				list = append(list, s)
			}
		case <-deadline:
			w.t.Fatalf("the last signal doesn't come; so far %v", list)
		}
	}
}

// marked has the backend make a change that is told from all others, and returns the signals before it.
func (f *fixture) marked(w *watcher, mark string) []*godbus.Signal {
	f.t.Helper()
	f.backend.change(func(s *vnet.Snapshot) { s.State = vnet.HostStatus(mark) })
	return w.until(func(s *godbus.Signal) bool {
		if s.Path != dbus.RootPath || s.Name != "org.freedesktop.DBus.Properties.PropertiesChanged" {
			return false
		}
		v, ok := s.Body[1].(variants)["State"]
		return ok && v.Value() == mark
	})
}

func describe(list []*godbus.Signal) (lines []string) {
	for _, s := range list {
		lines = append(lines, fmt.Sprintf("%s %s %v", s.Path, s.Name, s.Body))
	}
	return lines
}

func TestOneSignalForWhatReallyChanged(t *testing.T) {
	f := startServer(t, policy.Options{})
	w := f.watch(nobody)
	change := func(f2 func(n *vnet.NetworkState)) func(*vnet.Snapshot) {
		return func(s *vnet.Snapshot) { f2(&s.Networks[0]) }
	}
	const changed = "org.freedesktop.DBus.Properties.PropertiesChanged"
	tap := vnet.Port{Interface: "tap0", Kind: "tap", MAC: "02:00:00:00:00:01", Owner: 1000, RxBytes: 7, TxBytes: 8}
	lease := vnet.Lease{MAC: "02:00:00:00:00:01", Address: netip.MustParseAddr("192.168.231.7"), Hostname: "bad\xffname\x00", Expires: time.Unix(1700000000, 0)}
	for i, test := range []struct {
		name   string
		edit   func(*vnet.Snapshot)
		events []vnet.Event
		want   []string
	}{
		{"nothing", func(*vnet.Snapshot) {}, nil, nil},
		{"equal values, other slices", change(func(n *vnet.NetworkState) {
			n.Nameservers = []netip.Addr{netip.MustParseAddr("192.0.2.53")}
		}), nil, nil},
		{"two properties of one object", change(func(n *vnet.NetworkState) { n.State, n.Bridge = vnet.Degraded, "gway1" }), nil,
			[]string{`/org/gangway/Gangway1/network/default ` + changed + ` [org.gangway.Gangway1.Network map[Bridge:"gway1" State:"degraded"] []]`}},
		{"counters are no property", change(func(n *vnet.NetworkState) { n.Ports = nil }), nil, nil},
		{"a port, and then its event", change(func(n *vnet.NetworkState) { n.Ports = []vnet.Port{tap} }),
			[]vnet.Event{{Network: "default", PortAdded: &tap}}, []string{
				`/org/gangway/Gangway1/network/default ` + changed + ` [org.gangway.Gangway1.Network map[PortCount:@u 1] []]`,
				`/org/gangway/Gangway1/network/default org.gangway.Gangway1.Network.PortAdded [map[interface:"tap0" kind:"tap" mac:"02:00:00:00:00:01" owner:@u 1000 rx-bytes:@t 7 tx-bytes:@t 8]]`}},
		{"a guest's name that isn't text", change(func(n *vnet.NetworkState) { n.Leases = []vnet.Lease{lease} }),
			[]vnet.Event{{Network: "default", LeaseAdded: &lease}}, []string{
				`/org/gangway/Gangway1/network/default ` + changed + ` [org.gangway.Gangway1.Network map[LeaseCount:@u 1] []]`,
				`/org/gangway/Gangway1/network/default org.gangway.Gangway1.Network.LeaseAdded [map[address:"192.168.231.7" expires:@t 1700000000 hostname:"bad` + "\uFFFD" + `name` + "\uFFFD" + `" ipv6:@as [] mac:"02:00:00:00:00:01"]]`}},
		{"the lease and the port go", change(func(n *vnet.NetworkState) { n.Leases, n.Ports = nil, nil }),
			[]vnet.Event{{Network: "default", LeaseRemoved: &vnet.Lease{}}, {Network: "default", PortRemoved: &vnet.Port{}}}, []string{
				`/org/gangway/Gangway1/network/default ` + changed + ` [org.gangway.Gangway1.Network map[LeaseCount:@u 0 PortCount:@u 0] []]`,
				`/org/gangway/Gangway1/network/default org.gangway.Gangway1.Network.LeaseRemoved [map[address:"" expires:@t 0 hostname:"" ipv6:@as [] mac:""]]`,
				`/org/gangway/Gangway1/network/default org.gangway.Gangway1.Network.PortRemoved [map[interface:"" kind:"" mac:"" owner:@u 0 rx-bytes:@t 0 tx-bytes:@t 0]]`}},
		{"a switch", func(s *vnet.Snapshot) { s.Primary = "eth0"; s.Networks[0].Uplink = "eth0" },
			[]vnet.Event{{Switched: &vnet.Switch{From: "wlan0", To: "eth0", Detected: 5 * time.Second, NATDone: 5*time.Second + 7*time.Millisecond, FlowsFlushed: 3}}}, []string{
				`/org/gangway/Gangway1 ` + changed + ` [org.gangway.Gangway1.Manager map[PrimaryUplink:@o "/org/gangway/Gangway1/uplink/eth0"] []]`,
				`/org/gangway/Gangway1/network/default ` + changed + ` [org.gangway.Gangway1.Network map[Uplink:@o "/org/gangway/Gangway1/uplink/eth0"] []]`,
				`/org/gangway/Gangway1 org.gangway.Gangway1.Manager.Switched [/org/gangway/Gangway1/uplink/wlan0 /org/gangway/Gangway1/uplink/eth0 map[detected:@t 5000000 flows-flushed:@u 3 ipv6-done:@t 0 nat-done:@t 5007000 prefixes-announced:@as [] prefixes-withdrawn:@as []]]`}},
		{"another subnet", change(func(n *vnet.NetworkState) { n.Subnet = netip.MustParsePrefix("10.7.0.0/24") }),
			[]vnet.Event{{Network: "default", Renumbered: &vnet.Renumbered{Old: netip.MustParsePrefix("192.168.231.0/24"), New: netip.MustParsePrefix("10.7.0.0/24")}}}, []string{
				`/org/gangway/Gangway1/network/default ` + changed + ` [org.gangway.Gangway1.Network map[Subnet:"10.7.0.0/24"] []]`,
				`/org/gangway/Gangway1/network/default org.gangway.Gangway1.Network.Renumbered [192.168.231.0/24 10.7.0.0/24]`}},
		{"an uplink goes", func(s *vnet.Snapshot) { s.Uplinks = s.Uplinks[:1] }, nil, []string{
			`/org/gangway/Gangway1 ` + changed + ` [org.gangway.Gangway1.Manager map[Uplinks:@ao ["/org/gangway/Gangway1/uplink/eth0"]] []]`,
			`/org/gangway/Gangway1 org.freedesktop.DBus.ObjectManager.InterfacesRemoved [/org/gangway/Gangway1/uplink/wlan0 [org.gangway.Gangway1.Uplink]]`}},
	} {
		f.backend.change(test.edit, test.events...)
		if d := cmp.Diff(test.want, describe(f.marked(w, fmt.Sprint("mark ", i)))); d != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, d)
		}
	}
}

// model is what a client knows that reads once and then follows the signals.
type model map[godbus.ObjectPath]map[string]variants

func (m model) apply(t testing.TB, s *godbus.Signal) {
	switch s.Name {
	case "org.freedesktop.DBus.ObjectManager.InterfacesAdded":
		o := map[string]variants{}
		for iface, properties := range s.Body[1].(map[string]map[string]godbus.Variant) {
			o[iface] = maps.Clone(properties) // other models take the same signal
		}
		m[s.Body[0].(godbus.ObjectPath)] = o
	case "org.freedesktop.DBus.ObjectManager.InterfacesRemoved":
		delete(m, s.Body[0].(godbus.ObjectPath))
	case "org.freedesktop.DBus.Properties.PropertiesChanged":
		if s.Path == dbus.RootPath {
			return
		}
		o := m[s.Path][s.Body[0].(string)]
		if o == nil {
			t.Errorf("PropertiesChanged of %s, which isn't there", s.Path)
			return
		}
		for name, v := range s.Body[1].(variants) {
			o[name] = v
		}
	}
}

func read(t testing.TB, conn *godbus.Conn) (model, godbus.Sequence) {
	t.Helper()
	c := send(conn, 0, dbus.RootPath, "org.freedesktop.DBus.ObjectManager.GetManagedObjects")
	<-c.Done
	must(t, c.Err)
	return c.Body[0].(map[godbus.ObjectPath]map[string]map[string]godbus.Variant), c.ResponseSequence
}

// Clients that read at any moment during a churn, and follow the signals from then on, end up with
// the truth. What they read is consistent in itself, and introspection goes on meanwhile.
func TestReadersDuringChurn(t *testing.T) {
	f := startServer(t, policy.Options{})
	stop, churned := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(churned)
		r := rand.New(rand.NewSource(1))
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			f.backend.change(func(s *vnet.Snapshot) {
				n := r.Intn(6)
				s.Networks, s.Uplinks, s.Primary = nil, []vnet.UplinkState{uplink("eth0")}, "eth0"
				if r.Intn(2) == 0 {
					s.Uplinks, s.Primary = append(s.Uplinks, uplink("wlan0")), "wlan0"
				}
				for j := range n {
					net := network(fmt.Sprintf("n%d", j))
					net.Uplink = s.Primary
					net.Bridge = fmt.Sprint("gway", r.Intn(3))
					net.Leases = make([]vnet.Lease, r.Intn(3))
					s.Networks = append(s.Networks, net)
				}
			})
			time.Sleep(time.Millisecond) // a pace, not a wait: the bus should not be all backlog
		}
	}()
	var group sync.WaitGroup
	type reading struct {
		m    model
		from godbus.Sequence
	}
	type reader struct {
		w        *watcher
		readings []reading
	}
	var readers []*reader
	for range 4 {
		o := &reader{w: f.watch(nobody)}
		readers = append(readers, o)
		group.Add(2)
		go func() {
			defer group.Done()
			for range 25 {
				m, from := read(t, o.w.conn)
				for path, ifaces := range m {
					if n, ok := ifaces[dbus.NetworkInterface]; ok {
						up := n["Uplink"].Value().(godbus.ObjectPath)
						if _, ok := m[up]; !ok {
							t.Errorf("%s is bound to %s, which isn't there", path, up)
						}
					}
				}
				o.readings = append(o.readings, reading{m, from})
			}
		}()
		introspector := f.client(nobody)
		go func() {
			defer group.Done()
			for range 25 {
				introspect(t, introspector, "/")
				introspect(t, introspector, dbus.RootPath+"/network")
				call(introspector, dbus.RootPath+"/network/n1", "org.freedesktop.DBus.Introspectable.Introspect")
			}
		}()
	}
	// Signals must be taken while the readers are at it; the watchers' queues hold them in order.
	group.Wait()
	close(stop)
	<-churned
	f.backend.change(func(s *vnet.Snapshot) { s.State = "the end" })
	for _, o := range readers {
		signals := o.w.until(func(s *godbus.Signal) bool {
			v, ok := variants{}, false
			if s.Path == dbus.RootPath && len(s.Body) == 3 {
				v, ok = s.Body[1].(variants)
			}
			return ok && v["State"].Value() == "the end"
		})
		truth, _ := read(t, o.w.conn)
		for i, r := range o.readings {
			for _, s := range signals {
				if s.Sequence > r.from {
					r.m.apply(t, s)
				}
			}
			if d := cmp.Diff(fmt.Sprint(truth), fmt.Sprint(r.m)); d != "" {
				t.Errorf("who reads as the %dth ends up with something else (-truth +client):\n%s", i, d)
			}
		}
	}
}

// When the reply to a command comes, the signals of its change have come, and the properties show it.
func TestReplyComesAfterTheSignals(t *testing.T) {
	f := startServer(t, policy.Options{})
	w := f.watch(0)
	for i := range 50 {
		member, state := dbus.NetworkInterface+".Stop", "inactive"
		if i%2 == 1 {
			member, state = dbus.NetworkInterface+".Start", "active"
		}
		c := send(w.conn, 0, networkPath, member)
		<-c.Done
		must(t, c.Err)
		body, name, _ := call(w.conn, networkPath, "org.freedesktop.DBus.Properties.Get", dbus.NetworkInterface, "State")
		if name != "" || body[0].(godbus.Variant).Value() != state {
			t.Errorf("after the reply the state is %v, want %s", body, state)
		}
		w.until(func(s *godbus.Signal) bool {
			if s.Path != networkPath {
				return false
			}
			if got := s.Body[1].(variants)["State"].Value(); got != state {
				t.Errorf("the signal says %v, want %s", got, state)
			}
			if s.Sequence > c.ResponseSequence {
				t.Error("the signal comes after the reply")
			}
			return true
		})
	}
	// Creating and deleting, too.
	c := send(w.conn, 0, dbus.RootPath, dbus.ManagerInterface+".CreateNetwork", "a-b", variants{})
	<-c.Done
	must(t, c.Err)
	if got := c.Body[0]; got != dbus.RootPath+"/network/a_2db" {
		t.Errorf("the object is %v", got)
	}
	if m, _ := read(t, w.conn); m[dbus.RootPath+"/network/a_2db"] == nil {
		t.Error("the new network isn't among the objects")
	}
	if _, name, text := call(w.conn, dbus.RootPath+"/network/a_2db", dbus.NetworkInterface+".Delete"); name != "" {
		t.Errorf("Delete: %s %s", name, text)
	}
	if m, _ := read(t, w.conn); m[dbus.RootPath+"/network/a_2db"] != nil {
		t.Error("the deleted network is among the objects")
	}
}
