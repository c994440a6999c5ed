package uplink

import (
	"context"
	"testing"

	nm "github.com/Wifx/gonetworkmanager/v3"
	godbus "github.com/godbus/dbus/v5"
)

func TestWatchHandle(t *testing.T) {
	const owner = ":1.7"
	changed := func(iface string, names ...string) *godbus.Signal {
		p := properties{}
		for _, name := range names {
			p[name] = godbus.MakeVariant(uint32(0))
		}
		return &godbus.Signal{Sender: owner, Path: nmPath, Name: propertiesInterface + ".PropertiesChanged", Body: []any{iface, p, []string{}}}
	}
	signal := func(name string, body ...any) *godbus.Signal {
		return &godbus.Signal{Sender: owner, Path: nmPath, Name: name, Body: body}
	}
	from := func(sender string, sig *godbus.Signal) *godbus.Signal { sig.Sender = sender; return sig }
	added := func(iface string) *godbus.Signal {
		return signal(objectManager+".InterfacesAdded", nmPath, map[string]properties{iface: {}})
	}
	const accessPoint = nm.NetworkManagerInterface + ".AccessPoint"
	for _, c := range []struct {
		name   string
		sig    *godbus.Signal
		poke   string
		reload bool
		forged bool
	}{
		{name: "primary", sig: changed(nm.NetworkManagerInterface, "State", "PrimaryConnection"), poke: "PrimaryConnection"},
		{name: "checkpoints", sig: changed(nm.NetworkManagerInterface, "Checkpoints")},
		{name: "forged primary", sig: from(":1.66", changed(nm.NetworkManagerInterface, "PrimaryConnection")), forged: true},
		{name: "gateway", sig: changed(nm.IP4ConfigInterface, "Gateway"), poke: "Gateway"},
		{name: "leases", sig: changed(nm.NetworkManagerInterface+".DHCP4Config", "Options")},
		{name: "connectivity of a device", sig: changed(nm.DeviceInterface, "Ip4Connectivity"), poke: "Ip4Connectivity"},
		{name: "split DNS", sig: changed(nm.DnsManagerInterface, "Configuration"), poke: "Configuration"},
		{name: "strength of an access point", sig: changed(accessPoint, "Strength", "LastSeen")},
		{name: "statistics", sig: changed(nm.DeviceInterface+".Statistics", "RxBytes")},
		{name: "activated", sig: signal(nm.DeviceInterface+".StateChanged", uint32(100), uint32(90), uint32(0)), poke: "StateChanged"},
		{name: "no longer activated", sig: signal(nm.DeviceInterface+".StateChanged", uint32(20), uint32(100), uint32(0)), poke: "StateChanged"},
		{name: "preparing", sig: signal(nm.DeviceInterface+".StateChanged", uint32(40), uint32(30), uint32(0))},
		{name: "device added", sig: added(nm.DeviceInterface), poke: "InterfacesAdded"},
		{name: "access point added", sig: added(accessPoint)},
		{name: "connection removed", sig: signal(objectManager+".InterfacesRemoved", nmPath, []string{nm.ActiveConnectionInterface}), poke: "InterfacesRemoved"},
		{name: "profile changed", sig: signal(nm.ConnectionInterface + ".Updated"), reload: true},
		{name: "profile deleted", sig: signal(nm.SettingsInterface+".ConnectionRemoved", nmPath), reload: true},
		{name: "others' object manager", sig: from(":1.9", signal(objectManager+".InterfacesAdded", nmPath, map[string]properties{"x.y": {}}))},
		{name: "somebody else's owner", sig: from(busName, signal(busName+".NameOwnerChanged", "a.b", "", ":1.9"))},
		{name: "forged owner", sig: from(":1.66", signal(busName+".NameOwnerChanged", nmName, owner, ":1.66"))},
		{name: "short body", sig: signal(propertiesInterface + ".PropertiesChanged")},
		{name: "wrong types", sig: signal(nm.DeviceInterface+".StateChanged", "a", "b")},
		{name: "no dot", sig: signal("x")},
	} {
		t.Run(c.name, func(t *testing.T) {
			var said string
			w := watch{owner: owner, reload: make(chan struct{}, 1), poke: func(reason string) { said += reason }}
			w.handle(c.sig)
			if said != c.poke || (len(w.reload) == 1) != c.reload || (w.forged == 1) != c.forged || w.owner != owner {
				t.Errorf("poked %q, reload %d, forged %d, owner %q", said, len(w.reload), w.forged, w.owner)
			}
		})
	}

	t.Run("owner changes", func(t *testing.T) {
		var said string
		w := watch{owner: owner, reload: make(chan struct{}, 1), poke: func(reason string) { said += reason + " " }}
		w.handle(from(busName, signal(busName+".NameOwnerChanged", nmName, owner, "")))
		w.handle(changed(nm.NetworkManagerInterface, "PrimaryConnection")) // of one who left
		w.handle(from(busName, signal(busName+".NameOwnerChanged", nmName, "", ":1.8")))
		w.handle(changed(nm.NetworkManagerInterface, "PrimaryConnection"))
		w.handle(from(":1.8", changed(nm.NetworkManagerInterface, "PrimaryConnection")))
		if said != "NameOwnerChanged NameOwnerChanged PrimaryConnection " || w.forged != 2 {
			t.Errorf("poked %q, forged %d", said, w.forged)
		}
	})
}

func TestWatchWithoutBus(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := New(Options{}).Watch(ctx, func(string) {}); err != nil {
		t.Error(err)
	}
	u, err := New(Options{}).Read(t.Context(), &office().k)
	if err != nil || u.Source != SourceRtnetlink || u.Primary != "eth0" {
		t.Errorf("%v, %+v", err, u)
	}
	if _, err := New(Options{}).Read(ctx, &office().k); err == nil {
		t.Error("no error from an ended context")
	}
}
