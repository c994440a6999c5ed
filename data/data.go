// Package data holds the files that are installed beside the programs; of those, it embeds
// the D-Bus contract, which the daemon serves by Introspect as it stands here.
//
// It parses nothing: package dbus does.
package data

import _ "embed"

// ManagerXML describes the interface org.gangway.Gangway1.Manager.
//
//go:embed org.gangway.Gangway1.Manager.xml
var ManagerXML string

// NetworkXML describes the interface org.gangway.Gangway1.Network.
//
//go:embed org.gangway.Gangway1.Network.xml
var NetworkXML string

// UplinkXML describes the interface org.gangway.Gangway1.Uplink.
//
//go:embed org.gangway.Gangway1.Uplink.xml
var UplinkXML string
