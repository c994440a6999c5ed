package uplink

import (
	"testing"

	nm "github.com/Wifx/gonetworkmanager/v3"
	godbus "github.com/godbus/dbus/v5"
)

func TestDecode(t *testing.T) {
	v := godbus.MakeVariant
	path := func(s string) godbus.Variant { return v(godbus.ObjectPath(s)) }
	for _, c := range []struct {
		name    string
		objects objects
		primary string
		devices int
	}{
		{"nothing", nil, "", 0},
		{"no primary is an object, too", objects{nmPath: {nm.NetworkManagerInterface: {"PrimaryConnection": path("/")}}}, "", 0},
		{"primary is gone already", objects{nmPath: {nm.NetworkManagerInterface: {"PrimaryConnection": path("/a/9")}}}, "", 0},
		{"its device is gone already", objects{
			nmPath: {nm.NetworkManagerInterface: {"PrimaryConnection": path("/a/1")}},
			"/a/1": {nm.ActiveConnectionInterface: {"Devices": v([]godbus.ObjectPath{"/d/1"})}},
		}, "", 0},
		{"of other types", objects{
			nmPath: {nm.NetworkManagerInterface: {"PrimaryConnection": v("/a/1")}},
			"/a/1": {nm.ActiveConnectionInterface: {"Devices": v("x"), "Vpn": v(uint32(1)), "Ip4Config": v(true)}},
			"/d/1": {nm.DeviceInterface: {"State": v("100"), "Interface": v(byte(7)), "DeviceType": v(int32(1))}},
		}, "", 1},
		{"a modem's interface is that of its IP", objects{
			nmPath: {nm.NetworkManagerInterface: {"PrimaryConnection": path("/a/1")}},
			"/a/1": {nm.ActiveConnectionInterface: {"Devices": v([]godbus.ObjectPath{"/d/1"})}},
			"/d/1": {nm.DeviceInterface: {"Interface": v("cdc-wdm0"), "IpInterface": v("wwan0"), "ActiveConnection": path("/a/1")}},
		}, "wwan0", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			pic := decode(c.objects)
			if pic.primary != c.primary || len(pic.devices) != c.devices {
				t.Errorf("primary %q, %d devices", pic.primary, len(pic.devices))
			}
			convert(&pic, &newScene().k, holds{}) // must cope with whatever it is
		})
	}
}
