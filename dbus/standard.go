package dbus

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	godbus "github.com/godbus/dbus/v5"
)

const (
	introspectable = "org.freedesktop.DBus.Introspectable"
	properties     = "org.freedesktop.DBus.Properties"
	objectManager  = "org.freedesktop.DBus.ObjectManager"
	peer           = "org.freedesktop.DBus.Peer"
)

// standardXML describes the interfaces of the D-Bus specification ("Standard Interfaces").
const standardXML = `<node>
  <interface name="org.freedesktop.DBus.Peer">
    <method name="Ping"/>
    <method name="GetMachineId">
      <arg name="machine_uuid" type="s" direction="out"/>
    </method>
  </interface>
  <interface name="org.freedesktop.DBus.Introspectable">
    <method name="Introspect">
      <arg name="xml_data" type="s" direction="out"/>
    </method>
  </interface>
  <interface name="org.freedesktop.DBus.Properties">
    <method name="Get">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="property_name" type="s" direction="in"/>
      <arg name="value" type="v" direction="out"/>
    </method>
    <method name="GetAll">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="properties" type="a{sv}" direction="out"/>
    </method>
    <method name="Set">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="property_name" type="s" direction="in"/>
      <arg name="value" type="v" direction="in"/>
    </method>
    <signal name="PropertiesChanged">
      <arg name="interface_name" type="s"/>
      <arg name="changed_properties" type="a{sv}"/>
      <arg name="invalidated_properties" type="as"/>
    </signal>
  </interface>
  <interface name="org.freedesktop.DBus.ObjectManager">
    <method name="GetManagedObjects">
      <arg name="objects" type="a{oa{sa{sv}}}" direction="out"/>
    </method>
    <signal name="InterfacesAdded">
      <arg name="object" type="o"/>
      <arg name="interfaces" type="a{sa{sv}}"/>
    </signal>
    <signal name="InterfacesRemoved">
      <arg name="object" type="o"/>
      <arg name="interfaces" type="as"/>
    </signal>
  </interface>
</node>`

const introspectHeader = `<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
<node>
`

var (
	introspectableMethods = map[string]method{"Introspect": {read: introspect}}
	propertiesMethods     = map[string]method{
		"Get":    {read: getProperty},
		"GetAll": {read: getProperties},
		"Set":    {read: setProperty},
	}
	objectManagerMethods = map[string]method{"GetManagedObjects": {read: managedObjects}}
	peerMethods          = map[string]method{
		"Ping":         {read: func(*call) ([]any, error) { return nil, nil }},
		"GetMachineId": {fetch: machineID},
	}
)

func introspect(c *call) ([]any, error) {
	var b strings.Builder
	b.WriteString(introspectHeader)
	for _, name := range c.object.interfaces() {
		b.WriteString("  " + contract[name].xml + "\n")
	}
	for _, child := range c.tree.children(c.object.path) {
		fmt.Fprintf(&b, "  <node name=%q/>\n", child) // a label needs no escaping
	}
	b.WriteString("</node>\n")
	return []any{b.String()}, nil
}

// propertiesOf checks that the object has the interface; the standard ones and, as many clients
// ask for it, the empty one mean all that the object has.
func propertiesOf(c *call, iface string) (map[string]godbus.Variant, error) {
	if !c.object.has(iface) && !(iface == "" && c.object.iface != "") {
		return nil, fault(errUnknownInterface, "object %s has no interface %q", c.object.path, iface)
	}
	if iface == c.object.iface || iface == "" {
		return c.object.properties, nil
	}
	return map[string]godbus.Variant{}, nil
}

func getProperty(c *call) ([]any, error) {
	iface, name := c.text(0), c.text(1)
	values, err := propertiesOf(c, iface)
	if err != nil {
		return nil, err
	}
	v, ok := values[name]
	if !ok {
		return nil, fault(errUnknownProperty, "interface %q of object %s has no property %q", iface, c.object.path, name)
	}
	return []any{v}, nil
}

func getProperties(c *call) ([]any, error) {
	values, err := propertiesOf(c, c.text(0))
	if err != nil {
		return nil, err
	}
	return []any{values}, nil
}

func setProperty(c *call) ([]any, error) {
	if _, err := getProperty(c); err != nil {
		return nil, err
	}
	return nil, fault(errPropertyReadOnly, "property %q is read-only; methods make changes", c.text(1))
}

func managedObjects(c *call) ([]any, error) {
	objects := map[godbus.ObjectPath]map[string]map[string]godbus.Variant{}
	for path, o := range c.tree.objects {
		if path != RootPath && o.iface != "" {
			objects[path] = map[string]map[string]godbus.Variant{o.iface: o.properties}
		}
	}
	return []any{objects}, nil
}

// machineID reads the machine's identity (machine-id(5)); the second place is D-Bus's own.
func machineID(*call) ([]any, error) {
	var first error
	for _, path := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		b, err := os.ReadFile(path)
		if err == nil {
			return []any{clean(string(bytes.TrimSpace(b)))}, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, fmt.Errorf("cannot read the machine's id: %w", first)
}
