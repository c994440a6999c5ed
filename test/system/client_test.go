package system_test

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"sync"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// options is a{sv}.
type options map[string]godbus.Variant

// dict makes options of plain values.
func dict(pairs ...any) options {
	o := options{}
	for i := 0; i < len(pairs); i += 2 {
		o[pairs[i].(string)] = godbus.MakeVariant(pairs[i+1])
	}
	return o
}

func uplinkPath(ifname string) godbus.ObjectPath {
	return root + "/uplink/" + godbus.ObjectPath(strings.ReplaceAll(ifname, "-", "_2d"))
}

// call calls "Manager.CreateNetwork" or the like, and fails the test unless it succeeds.
func (w *world) call(path godbus.ObjectPath, member string, args ...any) []any {
	w.t.Helper()
	body, err := w.try(w.bus, path, member, args...)
	if err != nil {
		w.t.Fatalf("%s of %s: %v", member, path, err)
	}
	return body
}

func (w *world) try(conn *godbus.Conn, path godbus.ObjectPath, member string, args ...any) ([]any, error) {
	c := conn.Object(busName, path).CallWithContext(w.soon(), busName+"."+member, 0, args...)
	return c.Body, c.Err
}

// fault calls and returns the name and the text of the error, "" without one.
func (w *world) fault(conn *godbus.Conn, path godbus.ObjectPath, member string, args ...any) (name, message string) {
	_, err := w.try(conn, path, member, args...)
	var e godbus.Error
	if p := (*godbus.Error)(nil); errors.As(err, &p) {
		e = *p
	} else if !errors.As(err, &e) && err != nil {
		return "?", err.Error()
	}
	return strings.TrimPrefix(e.Name, ourErrors), e.Error()
}

func (w *world) create(name string, settings options) godbus.ObjectPath {
	w.t.Helper()
	return w.call(root, "Manager.CreateNetwork", name, settings)[0].(godbus.ObjectPath)
}

// get reads a property of a network, an uplink or the manager, whichever the path is of.
func (w *world) get(path godbus.ObjectPath, property string) any {
	w.t.Helper()
	v, err := w.property(path, property)
	w.must(err)
	return v
}

func (w *world) property(path godbus.ObjectPath, property string) (any, error) {
	iface := ".Manager."
	switch {
	case strings.HasPrefix(string(path), string(root)+"/network/"):
		iface = ".Network."
	case strings.HasPrefix(string(path), string(root)+"/uplink/"):
		iface = ".Uplink."
	}
	v, err := w.bus.Object(busName, path).GetProperty(busName + iface + property)
	return v.Value(), err
}

func (w *world) text(path godbus.ObjectPath, property string) string {
	w.t.Helper()
	return fmt.Sprint(w.get(path, property))
}

// waitProperty waits for a value.
func (w *world) waitProperty(path godbus.ObjectPath, property string, want any) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("%s of %s is %v", property, path, want), func() error {
		v, err := w.property(path, property)
		if err == nil && !reflect.DeepEqual(v, want) {
			err = fmt.Errorf("it is %v (%s)", v, w.reasons(path))
		}
		return err
	})
}

func (w *world) reasons(path godbus.ObjectPath) string {
	state, _ := w.property(path, "StateReason") // absent on other objects
	ipv4, _ := w.property(path, "IPv4Reason")
	return fmt.Sprint(state, "; ", ipv4)
}

// waitUplink waits until a network is bound to the interface, "" for none.
func (w *world) waitUplink(network godbus.ObjectPath, ifname string) {
	w.t.Helper()
	want := godbus.ObjectPath("/")
	if ifname != "" {
		want = uplinkPath(ifname)
	}
	w.waitProperty(network, "Uplink", want)
}

type objects map[godbus.ObjectPath]map[string]map[string]godbus.Variant

func (w *world) objects() objects {
	w.t.Helper()
	o, err := managed(w.bus)
	w.must(err)
	return o
}

func managed(conn *godbus.Conn) (objects, error) {
	o := objects{}
	if err := conn.Object(busName, root).Call("org.freedesktop.DBus.ObjectManager.GetManagedObjects", 0).Store(&o); err != nil {
		return nil, err
	}
	// It has what is below the root, not the root itself.
	manager := map[string]godbus.Variant{}
	err := conn.Object(busName, root).Call("org.freedesktop.DBus.Properties.GetAll", 0, busName+".Manager").Store(&manager)
	o[root] = map[string]map[string]godbus.Variant{busName + ".Manager": manager}
	return o, err
}

// mirror keeps a copy of the objects by signals alone, and the signals.
type mirror struct {
	w    *world
	conn *godbus.Conn

	mu      sync.Mutex
	objects objects
	signals []*godbus.Signal
	wrong   []string
}

// watch begins a mirror as soon as gangwayd is at rest: a signal that comes while the objects are
// asked for may be in them already, or not.
func (w *world) watch() *mirror {
	w.t.Helper()
	m := &mirror{w: w}
	var err error
	m.conn, err = w.Bus(godbus.WithSignalHandler(godbus.NewSequentialSignalHandler()))
	w.must(err)
	w.t.Cleanup(func() { m.conn.Close() })
	w.must(m.conn.AddMatchSignal(godbus.WithMatchSender(busName)))
	c := make(chan *godbus.Signal, 64)
	m.conn.Signal(c)
	w.eventually("gangwayd is at rest", func() error {
		if m.objects, err = managed(m.conn); err != nil {
			return err
		}
		select {
		case s := <-c:
			return fmt.Errorf("%s came", s.Name)
		case <-time.After(200 * time.Millisecond):
			return nil
		}
	})
	go func() {
		for s := range c {
			m.note(s)
		}
	}()
	return m
}

func (m *mirror) note(s *godbus.Signal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.signals = append(m.signals, s)
	switch s.Name {
	case "org.freedesktop.DBus.Properties.PropertiesChanged":
		iface, changed := s.Body[0].(string), s.Body[1].(map[string]godbus.Variant)
		have := m.objects[s.Path][iface]
		if have == nil {
			m.wrong = append(m.wrong, fmt.Sprintf("PropertiesChanged of %s, which is not there", s.Path))
			return
		}
		for key, v := range changed {
			if reflect.DeepEqual(have[key], v) {
				m.wrong = append(m.wrong, fmt.Sprintf("PropertiesChanged of %s says that %s changed to %v, which it was", s.Path, key, v))
			}
			have[key] = v
		}
	case "org.freedesktop.DBus.ObjectManager.InterfacesAdded":
		path := s.Body[0].(godbus.ObjectPath)
		if m.objects[path] == nil {
			m.objects[path] = map[string]map[string]godbus.Variant{}
		}
		maps.Copy(m.objects[path], s.Body[1].(map[string]map[string]godbus.Variant))
	case "org.freedesktop.DBus.ObjectManager.InterfacesRemoved":
		path := s.Body[0].(godbus.ObjectPath)
		for _, iface := range s.Body[1].([]string) {
			delete(m.objects[path], iface)
		}
		if len(m.objects[path]) == 0 {
			delete(m.objects, path)
		}
	}
}

// named returns the signals with that name so far: "Manager.Switched".
func (m *mirror) named(member string) []*godbus.Signal {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []*godbus.Signal
	for _, s := range m.signals {
		if s.Name == busName+"."+member {
			list = append(list, s)
		}
	}
	return list
}

// await waits until there are n signals with that name, and returns them.
func (m *mirror) await(member string, n int) []*godbus.Signal {
	m.w.t.Helper()
	m.w.eventually(fmt.Sprintf("%d signals %s", n, member), func() error {
		if have := len(m.named(member)); have < n {
			return fmt.Errorf("there are %d", have)
		}
		return nil
	})
	return m.named(member)
}

// agrees waits until the copy is what the daemon says by itself, and fails upon any signal that was wrong.
func (m *mirror) agrees() {
	m.w.t.Helper()
	m.w.eventually("signals and properties agree", func() error {
		want := m.w.objects()
		m.mu.Lock()
		defer m.mu.Unlock()
		return difference(m.objects, want)
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, text := range m.wrong {
		m.w.t.Error(text)
	}
	m.wrong = nil
}

// difference names the first property in which two trees differ.
func difference(a, b objects) error {
	for _, side := range []struct {
		one, other objects
		what       string
	}{{a, b, "too much"}, {b, a, "too little"}} {
		for path, ifaces := range side.one {
			for iface, properties := range ifaces {
				for key, v := range properties {
					if other := side.other[path][iface][key]; !reflect.DeepEqual(v, other) {
						return fmt.Errorf("%s: %s.%s of %s: %v, %v", side.what, iface, key, path, v, other)
					}
				}
			}
		}
	}
	return nil
}
