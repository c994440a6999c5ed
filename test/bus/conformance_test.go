package bus

import (
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"gangway/data"
	"gangway/dbus"
	"gangway/policy"
)

const (
	networkPath = dbus.RootPath + "/network/default"
	uplinkPath  = dbus.RootPath + "/uplink/wlan0"
)

type xmlArg struct {
	Name      string `xml:"name,attr"`
	Type      string `xml:"type,attr"`
	Direction string `xml:"direction,attr"`
}

type xmlMember struct {
	Name        string   `xml:"name,attr"`
	Type        string   `xml:"type,attr"`
	Access      string   `xml:"access,attr"`
	Args        []xmlArg `xml:"arg"`
	Annotations []struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	} `xml:"annotation"`
}

func (m xmlMember) annotation(name string) string {
	for _, a := range m.Annotations {
		if a.Name == name {
			return a.Value
		}
	}
	return ""
}

func (m xmlMember) in() (signature string) {
	for _, a := range m.Args {
		if a.Direction != "out" {
			signature += a.Type
		}
	}
	return signature
}

type xmlInterface struct {
	Name       string      `xml:"name,attr"`
	Methods    []xmlMember `xml:"method"`
	Properties []xmlMember `xml:"property"`
	Signals    []xmlMember `xml:"signal"`
}

type xmlNode struct {
	Interfaces []xmlInterface `xml:"interface"`
	Nodes      []struct {
		Name string `xml:"name,attr"`
	} `xml:"node"`
}

func introspect(t testing.TB, conn *godbus.Conn, path godbus.ObjectPath) (string, xmlNode) {
	t.Helper()
	body, name, text := call(conn, path, "org.freedesktop.DBus.Introspectable.Introspect")
	if name != "" {
		t.Fatalf("Introspect of %s: %s: %s", path, name, text)
	}
	var node xmlNode
	must(t, xml.Unmarshal([]byte(body[0].(string)), &node))
	return body[0].(string), node
}

var ours = map[string]struct {
	xml  string
	path godbus.ObjectPath
}{
	dbus.ManagerInterface: {data.ManagerXML, dbus.RootPath},
	dbus.NetworkInterface: {data.NetworkXML, networkPath},
	dbus.UplinkInterface:  {data.UplinkXML, uplinkPath},
}

func TestIntrospectServesTheInstalledXML(t *testing.T) {
	f := startServer(t, policy.Options{})
	conn := f.client(nobody)
	for iface, o := range ours {
		from := strings.Index(o.xml, "<interface ")
		to := strings.LastIndex(o.xml, "</interface>")
		text, node := introspect(t, conn, o.path)
		if !strings.Contains(text, o.xml[from:to]) {
			t.Errorf("%s isn't served as it stands in the file", iface)
		}
		var names []string
		for _, i := range node.Interfaces {
			names = append(names, strings.TrimPrefix(i.Name, "org.freedesktop.DBus."))
		}
		want := []string{iface, "Properties", "Introspectable", "Peer"}
		if o.path == dbus.RootPath {
			want = append(want, "ObjectManager")
		}
		if d := cmp.Diff(want, names); d != "" {
			t.Errorf("interfaces of %s (-want +got):\n%s", o.path, d)
		}
	}
	var leads []string
	for path := godbus.ObjectPath("/"); ; {
		_, node := introspect(t, conn, path)
		if len(node.Nodes) == 0 {
			break
		}
		leads = append(leads, node.Nodes[0].Name)
		path = godbus.ObjectPath(strings.TrimSuffix(string(path), "/") + "/" + node.Nodes[0].Name)
	}
	if got := strings.Join(leads, "/"); got != "org/gangway/Gangway1/network/default" {
		t.Errorf("the first nodes lead to %q", got)
	}
}

// Every property in the XML is served with its type, and no other.
func TestPropertiesAreThoseOfTheXML(t *testing.T) {
	f := startServer(t, policy.Options{})
	conn := f.client(nobody)
	for iface, o := range ours {
		body, name, text := call(conn, o.path, "org.freedesktop.DBus.Properties.GetAll", iface)
		if name != "" {
			t.Fatalf("GetAll of %s: %s: %s", iface, name, text)
		}
		got := map[string]string{}
		for property, v := range body[0].(map[string]godbus.Variant) {
			got[property] = v.Signature().String()
			single, name, _ := call(conn, o.path, "org.freedesktop.DBus.Properties.Get", iface, property)
			if name != "" || single[0].(godbus.Variant).String() != v.String() && property != "Settings" {
				t.Errorf("Get of %s.%s: %v %s, GetAll has %v", iface, property, single, name, v)
			}
		}
		want := map[string]string{}
		for _, p := range parse(t, o.xml).Properties {
			want[p.Name] = p.Type
			if p.Access != "read" {
				t.Errorf("property %s.%s has access %q", iface, p.Name, p.Access)
			}
			if e := p.annotation("org.freedesktop.DBus.Property.EmitsChangedSignal"); e != "true" && e != "const" {
				t.Errorf("property %s.%s says %q of its changes", iface, p.Name, e)
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("properties of %s (-XML +served):\n%s", iface, d)
		}
	}
}

func parse(t testing.TB, text string) xmlInterface {
	t.Helper()
	var node xmlNode
	must(t, xml.Unmarshal([]byte(text), &node))
	if len(node.Interfaces) != 1 {
		t.Fatalf("the XML has %d interfaces", len(node.Interfaces))
	}
	return node.Interfaces[0]
}

// Every method in the XML is served, as arguments of another type show: they are refused, and
// the text names both types. Nothing reaches the backend.
func TestArgumentsOfAnotherType(t *testing.T) {
	f := startServer(t, policy.Options{})
	conn := f.client(0)
	wrong := func(signature string) [][]any {
		all := [][]any{{"x", "y", "z", "too many"}, {int16(1)}, {godbus.MakeVariant("s")}, {map[string]string{"a": "b"}}}
		if signature != "" {
			all = append(all, nil)
		}
		if signature != "s" {
			all = append(all, []any{"default"})
		}
		if signature != "ss" {
			all = append(all, []any{"a", "b"})
		}
		return all
	}
	for _, path := range []godbus.ObjectPath{dbus.RootPath, networkPath, uplinkPath} {
		_, node := introspect(t, conn, path)
		for _, i := range node.Interfaces {
			for _, m := range i.Methods {
				for _, args := range wrong(m.in()) {
					got := godbus.SignatureOf(args...).String()
					_, name, text := call(conn, path, i.Name+"."+m.Name, args...)
					if i.Name == "org.freedesktop.DBus.Peer" && m.Name == "Ping" && name == "" {
						t.Errorf("Ping took arguments %v", args)
					}
					if name != "org.freedesktop.DBus.Error.InvalidArgs" {
						t.Errorf("%s.%s(%q): error %q: %s", i.Name, m.Name, got, name, text)
					} else if !strings.Contains(text, fmt.Sprintf("%q", m.in())) || !strings.Contains(text, fmt.Sprintf("%q", got)) {
						t.Errorf("%s.%s(%q): the error names not both types: %s", i.Name, m.Name, got, text)
					}
				}
			}
		}
	}
	if done := f.backend.carriedOut(); len(done) > 0 {
		t.Errorf("carried out nevertheless: %q", done)
	}
}

func TestUnknownNames(t *testing.T) {
	f := startServer(t, policy.Options{})
	conn := f.client(0) // calls without an interface are root's alone, by the bus policy
	const standard = "org.freedesktop.DBus.Error."
	get, set := "org.freedesktop.DBus.Properties.Get", "org.freedesktop.DBus.Properties.Set"
	all := "org.freedesktop.DBus.Properties.GetAll"
	for _, test := range []struct {
		path   godbus.ObjectPath
		member string
		args   []any
		want   string
	}{
		{"/nowhere", "org.freedesktop.DBus.Introspectable.Introspect", nil, standard + "UnknownObject"},
		{dbus.RootPath + "/network/none", dbus.NetworkInterface + ".Start", nil, standard + "UnknownObject"},
		{dbus.RootPath + "/network/_2e_2e_2fx", dbus.NetworkInterface + ".GetLeases", nil, standard + "UnknownObject"},
		{dbus.RootPath + "/network/_", dbus.NetworkInterface + ".GetPorts", nil, standard + "UnknownObject"},
		{dbus.RootPath + "/network/_zz", all, []any{dbus.NetworkInterface}, standard + "UnknownObject"},
		{dbus.RootPath + "/network", all, []any{""}, standard + "UnknownInterface"},
		{networkPath, dbus.ManagerInterface + ".Diagnose", nil, standard + "UnknownInterface"},
		{networkPath, dbus.NetworkInterface + ".Explode", nil, standard + "UnknownMethod"},
		{networkPath, "Explode", nil, standard + "UnknownMethod"},
		{networkPath, get, []any{dbus.ManagerInterface, "State"}, standard + "UnknownInterface"},
		{networkPath, get, []any{dbus.NetworkInterface, "Colour"}, standard + "UnknownProperty"},
		{networkPath, get, []any{"org.freedesktop.DBus.Peer", "Colour"}, standard + "UnknownProperty"},
		{networkPath, set, []any{dbus.NetworkInterface, "State", godbus.MakeVariant("active")}, standard + "PropertyReadOnly"},
		{networkPath, set, []any{dbus.NetworkInterface, "Colour", godbus.MakeVariant("red")}, standard + "UnknownProperty"},
		{networkPath, all, []any{"org.freedesktop.DBus.Peer"}, ""},
		{networkPath, all, []any{""}, ""},
		{networkPath, "GetLeases", nil, ""},
		{"/nowhere", "org.freedesktop.DBus.Peer.Ping", nil, ""},
		{"/nowhere", "org.freedesktop.DBus.Peer.GetMachineId", nil, ""},
		{dbus.RootPath, dbus.ManagerInterface + ".NetworkByName", []any{"../x"}, "org.gangway.Gangway1.Error.NoSuchNetwork"},
		{dbus.RootPath, dbus.ManagerInterface + ".UplinkByInterface", []any{""}, "org.gangway.Gangway1.Error.NoSuchUplink"},
		{dbus.RootPath, dbus.ManagerInterface + ".CreateNetwork", []any{"../x", map[string]godbus.Variant{}}, "org.gangway.Gangway1.Error.InvalidSetting"},
		{networkPath, dbus.NetworkInterface + ".Attach", []any{"../x", map[string]godbus.Variant{}}, "org.gangway.Gangway1.Error.InvalidSetting"},
	} {
		if _, name, text := call(conn, test.path, test.member, test.args...); name != test.want {
			t.Errorf("%s %s%v: error %q (%s), want %q", test.path, test.member, test.args, name, text, test.want)
		}
	}
}

func TestMachineID(t *testing.T) {
	want, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		want, err = os.ReadFile("/var/lib/dbus/machine-id")
	}
	must(t, err)
	f := startServer(t, policy.Options{})
	body, name, text := call(f.client(nobody), networkPath, "org.freedesktop.DBus.Peer.GetMachineId")
	if name != "" || body[0] != strings.TrimSpace(string(want)) {
		t.Errorf("GetMachineId: %v %s %s, want %s", body, name, text, want)
	}
}

// The table of actions, the annotations in the XML and the actions that are installed agree.
func TestActionsAgree(t *testing.T) {
	annotated := map[string]string{}
	for iface, o := range ours {
		for _, m := range parse(t, o.xml).Methods {
			if a := m.annotation("org.gangway.Gangway1.Action"); a != "" {
				annotated[iface+"."+m.Name] = a
			} else if !strings.HasPrefix(m.Name, "Get") && !slices.Contains([]string{"NetworkByName", "UplinkByInterface", "Diagnose"}, m.Name) {
				t.Errorf("%s.%s changes something, but names no action", iface, m.Name)
			}
		}
	}
	table := map[string]string{}
	for _, member := range policy.Members() {
		dot := strings.LastIndexByte(member, '.')
		action, _ := policy.For(member[:dot], member[dot+1:])
		table[member] = string(action)
	}
	if d := cmp.Diff(annotated, table); d != "" {
		t.Errorf("actions (-XML +table):\n%s", d)
	}
	b, err := os.ReadFile("../../data/org.gangway.Gangway1.policy")
	must(t, err)
	var installed struct {
		Actions []struct {
			ID       string `xml:"id,attr"`
			Defaults struct {
				Any      string `xml:"allow_any"`
				Inactive string `xml:"allow_inactive"`
				Active   string `xml:"allow_active"`
			} `xml:"defaults"`
		} `xml:"action"`
	}
	must(t, xml.Unmarshal(b, &installed))
	got := map[policy.Action]string{}
	for _, a := range installed.Actions {
		got[policy.Action(a.ID)] = a.Defaults.Active + " / " + a.Defaults.Inactive + " / " + a.Defaults.Any
	}
	want := map[policy.Action]string{
		policy.ManageNetworks:  "auth_admin_keep / auth_admin / auth_admin",
		policy.ControlNetworks: "yes / auth_admin / auth_admin",
		policy.AttachGuest:     "yes / auth_admin / auth_admin",
		policy.AttachInterface: "auth_admin_keep / auth_admin / auth_admin",
		policy.ShareUplink:     "auth_admin_keep / auth_admin / auth_admin",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("installed actions (-want +got):\n%s", d)
	}
	for _, a := range policy.Actions() {
		if _, ok := got[a]; !ok {
			t.Errorf("action %s isn't installed", a)
		}
	}
	out, err := exec.Command("xmllint", "--noout", "--nonet", "--dtdvalid", "/usr/share/polkit-1/policyconfig-1.dtd", "../../data/org.gangway.Gangway1.policy").CombinedOutput()
	if err != nil {
		t.Errorf("the policy isn't valid: %v: %s", err, out)
	}
}
