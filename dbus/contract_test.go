package dbus

import (
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"gangway/data"
	"gangway/policy"
	"gangway/service/vnet"
)

// Every method of the contract is served in the way that its action, or the lack of one,
// asks for; nothing else is served.
func TestMethodsAreThoseOfTheContract(t *testing.T) {
	want, got := map[string]string{}, map[string]string{}
	for iface, spec := range contract {
		for member := range spec.methods {
			want[iface+"."+member] = "answers"
			if _, ok := policy.For(iface, member); ok {
				want[iface+"."+member] = "asks polkit"
			}
		}
	}
	for iface, list := range methods {
		for member, m := range list {
			switch {
			case m.check != nil && m.run != nil && m.read == nil && m.fetch == nil:
				got[iface+"."+member] = "asks polkit"
			case (m.read != nil) != (m.fetch != nil) && m.check == nil && m.run == nil:
				got[iface+"."+member] = "answers"
			}
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("methods (-contract +served):\n%s", d)
	}
}

// The rules of introspect.dtd (D-Bus specification, "Introspection Data Format"), and that
// every member is documented.
func TestXMLIsValid(t *testing.T) {
	within := map[string][]string{
		"":          {"node"},
		"node":      {"node", "interface"},
		"interface": {"method", "signal", "property", "annotation"},
		"method":    {"arg", "annotation"},
		"signal":    {"arg", "annotation"},
		"property":  {"annotation"},
	}
	attributes := map[string][]string{ // the required ones, then the others
		"node": {"|name"}, "interface": {"name"}, "method": {"name"}, "signal": {"name"}, "arg": {"type", "|name direction"},
		"property": {"name", "type", "access"}, "annotation": {"name", "value"},
	}
	for _, text := range []string{data.ManagerXML, data.NetworkXML, data.UplinkXML, standardXML} {
		decoder := xml.NewDecoder(strings.NewReader(text))
		var stack []string
		for {
			token, err := decoder.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			switch e := token.(type) {
			case xml.StartElement:
				parent := ""
				if len(stack) > 0 {
					parent = stack[len(stack)-1]
				}
				if !slices.Contains(within[parent], e.Name.Local) {
					t.Errorf("<%s> within <%s>", e.Name.Local, parent)
				}
				given := map[string]string{}
				for _, a := range e.Attr {
					given[a.Name.Local] = a.Value
				}
				for _, name := range attributes[e.Name.Local] {
					if optional, ok := strings.CutPrefix(name, "|"); ok {
						for _, name := range strings.Fields(optional) {
							delete(given, name)
						}
						continue
					}
					value, ok := given[name]
					if !ok {
						t.Errorf("<%s> without %s: %v", e.Name.Local, name, e.Attr)
					}
					if name == "type" {
						if s, err := godbus.ParseSignature(value); err != nil || s.Empty() {
							t.Errorf("<%s> of type %q", e.Name.Local, value)
						}
					}
					delete(given, name)
				}
				if len(given) > 0 {
					t.Errorf("<%s> with %v", e.Name.Local, given)
				}
				stack = append(stack, e.Name.Local)
			case xml.EndElement:
				stack = stack[:len(stack)-1]
			}
		}
	}
}

func TestErrorNames(t *testing.T) {
	for kind, name := range errorNames {
		if name != ourErrors+string(kind) {
			t.Errorf("kind %s has the name %s", kind, name)
		}
	}
	for _, kind := range []vnet.ErrorKind{vnet.NetworkExists, vnet.NoSuchNetwork, vnet.NoSuchUplink, vnet.InvalidSetting,
		vnet.SubnetConflict, vnet.InUse, vnet.NotSupported, vnet.NotShared, vnet.LimitExceeded, vnet.Failed} {
		if name, _ := errorFor(vnet.Errorf(kind, "x")); name != ourErrors+string(kind) {
			t.Errorf("kind %s becomes %s", kind, name)
		}
	}
}

// Settings survive the way to the bus and back, and every field has the signature it says.
func TestSettingsOnTheWire(t *testing.T) {
	settings, err := vnet.DefaultSettings("lab").Merge(map[string]any{"mtu": uint32(1400), "ipv4-subnet": "10.7.0.0/24",
		"dhcp-hosts": []map[string]any{{"mac": "02:00:00:00:00:01", "address": "10.7.0.9", "hostname": "vm"}}})
	if err != nil {
		t.Fatal(err)
	}
	sent := settingsVariant(settings.Values()).Value().(variants)
	for _, field := range vnet.Fields() {
		if got := sent[field.Key].Signature().String(); got != field.Signature {
			t.Errorf("setting %s has the type %s, want %s", field.Key, got, field.Signature)
		}
	}
	back, err := vnet.DefaultSettings("lab").Merge(plainValues(sent))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(settings.Values(), back.Values()); d != "" {
		t.Errorf("there and back (-want +got):\n%s", d)
	}
}
