package uplink

import (
	"strings"

	nm "github.com/Wifx/gonetworkmanager/v3"
	godbus "github.com/godbus/dbus/v5"
)

const (
	busName             = "org.freedesktop.DBus"
	propertiesInterface = "org.freedesktop.DBus.Properties"
	objectManager       = "org.freedesktop.DBus.ObjectManager"
)

// watched lists the properties whose change can change a reading, by interface. What else
// NetworkManager has to tell, such as the strength of access points, the bus does
// not even deliver.
var watched = map[string][]string{
	nm.NetworkManagerInterface: {
		nm.NetworkManagerPropertyPrimaryConnection,
		nm.NetworkManagerPropertyActiveConnections,
	},
	// State isn't here: the signal StateChanged says more.
	nm.DeviceInterface: {
		nm.DevicePropertyActiveConnection,
		nm.DevicePropertyIp4Config,
		nm.DevicePropertyIp6Config,
		nm.DevicePropertyDhcp6Config,
		nm.DevicePropertyIpInterface,
		nm.DevicePropertyInterface,
		nm.DevicePropertyMetered,
		nm.DevicePropertyIp4Connectivity,
	},
	nm.ActiveConnectionInterface: {
		nm.ActiveConnectionPropertyState,
		nm.ActiveConnectionPropertyDefault,
		nm.ActiveConnectionPropertyDefault6,
		nm.ActiveConnectionPropertyDevices,
		nm.ActiveConnectionPropertyVpn,
		nm.ActiveConnectionPropertyId,
		nm.ActiveConnectionPropertyIp4Config,
		nm.ActiveConnectionPropertyIp6Config,
	},
	nm.IP4ConfigInterface: {
		nm.IP4ConfigPropertyGateway,
		nm.IP4ConfigPropertyRouteData,
		nm.IP4ConfigPropertyNameserverData,
	},
	nm.IP6ConfigInterface: {
		nm.IP6ConfigPropertyGateway,
		nm.IP6ConfigPropertyNameservers,
	},
	nm.DHCP6ConfigInterface: {nm.DHCP6ConfigPropertyOptions},
	nm.DnsManagerInterface:  {nm.DnsManagerPropertyConfiguration},
}

// watch is the state of a running Watch.
type watch struct {
	owner  string // unique name, "" if NetworkManager isn't running
	forged int    // signals dropped
	poke   func(string)
	reload chan struct{}
}

// handle acts on a signal; it returns false for a forged one. A connection also gets what
// others subscribed to, and whatever any peer sends it without being asked.
func (w *watch) handle(sig *godbus.Signal) bool {
	i := strings.LastIndexByte(sig.Name, '.')
	iface, member := sig.Name[:max(i, 0)], sig.Name[i+1:]
	if sig.Name == busName+".NameOwnerChanged" {
		// Only the bus itself is called so: nobody can own that name.
		if name, _ := arg[string](sig, 0); sig.Sender == busName && name == nmName {
			w.owner, _ = arg[string](sig, 2)
			w.requestReload()
			w.poke(member)
		}
		return true
	}
	reason := relevant(sig, iface, member)
	if reason == "" {
		return true
	}
	if w.owner == "" || sig.Sender != w.owner {
		w.forged++
		return false
	}
	switch iface {
	case nm.SettingsInterface, nm.ConnectionInterface:
		w.requestReload() // which pokes when it is done
	default:
		w.poke(reason)
	}
	return true
}

// relevant returns the word for the log when the signal is one of NetworkManager's that can
// change a reading, "" otherwise.
func relevant(sig *godbus.Signal, iface, member string) string {
	switch iface {
	case propertiesInterface:
		if member != "PropertiesChanged" {
			return ""
		}
		of, _ := arg[string](sig, 0)
		changed, _ := arg[properties](sig, 1)
		for _, name := range watched[of] {
			name = name[strings.LastIndexByte(name, '.')+1:]
			if _, ok := changed[name]; ok {
				return name
			}
		}
	case nm.DeviceInterface:
		now, _ := arg[uint32](sig, 0)
		before, _ := arg[uint32](sig, 1)
		// The states before those in which a device can have addresses concern nobody.
		if member == "StateChanged" && nm.NmDeviceState(max(now, before)) >= nm.NmDeviceStateIpConfig {
			return member
		}
	case objectManager:
		switch member {
		case "InterfacesAdded":
			ifaces, _ := arg[map[string]properties](sig, 1)
			for name := range ifaces {
				if isObject(name) {
					return member
				}
			}
		case "InterfacesRemoved":
			ifaces, _ := arg[[]string](sig, 1)
			for _, name := range ifaces {
				if isObject(name) {
					return member
				}
			}
		}
	case nm.SettingsInterface:
		if member == "NewConnection" || member == "ConnectionRemoved" {
			return member
		}
	case nm.ConnectionInterface:
		if member == "Updated" {
			return member
		}
	}
	return ""
}

// isObject tells whether an object with the interface counts by merely being there. Access
// points come and go by the minute.
func isObject(iface string) bool {
	return iface == nm.DeviceInterface || iface == nm.ActiveConnectionInterface
}

func arg[T any](sig *godbus.Signal, i int) (value T, ok bool) {
	if i < len(sig.Body) {
		value, ok = sig.Body[i].(T)
	}
	return value, ok
}
