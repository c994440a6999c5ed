package dbus

import (
	godbus "github.com/godbus/dbus/v5"

	"gangway/service/vnet"
)

var uplinkMethods = map[string]method{
	"SetSharing": {check: checkSharing, run: setSharing},
}

func uplinkProperties(u *vnet.UplinkState) variants {
	return variants{
		"Interface":      textVariant(u.Interface),
		"Kind":           textVariant(u.Kind),
		"Primary":        godbus.MakeVariant(u.Primary),
		"Connection":     textVariant(u.Connection),
		"ConnectionUUID": textVariant(u.ConnectionUUID),
		"Sharing":        textVariant(u.Sharing),
		"SharedBridge":   textVariant(u.SharedBridge),
		"IPv6Method":     textVariant(u.IPv6Method),
		"IPv6Reason":     textVariant(u.IPv6Reason),
		"Addresses":      texts(u.Addresses, prefixText),
		"Prefixes":       texts(u.Prefixes, prefixText),
		"Routers":        texts(u.Routers, addrText),
		"Nameservers":    texts(u.Nameservers, addrText),
		"Metered":        textVariant(u.Metered),
		"Connectivity":   textVariant(u.Connectivity),
	}
}

func checkSharing(c *call) error {
	c.details["interface"] = c.object.name
	switch mode := c.text(0); mode {
	case "auto", "bridge", "never":
		return nil
	default:
		return vnet.SettingErrorf("mode", "%q is not one of auto, bridge, never", mode)
	}
}

func setSharing(c *call) ([]any, error) {
	return nil, c.server.backend.SetSharing(c.ctx, c.object.name, c.text(0))
}
