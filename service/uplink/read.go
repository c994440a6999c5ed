package uplink

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	nm "github.com/Wifx/gonetworkmanager/v3"
	godbus "github.com/godbus/dbus/v5"
	"github.com/vishvananda/netlink"

	"gangway/service/plan"
	"gangway/service/vnet"
)

const (
	nmName = nm.NetworkManagerInterface
	// objectRoot is where NetworkManager's ObjectManager is.
	objectRoot        godbus.ObjectPath = "/org/freedesktop"
	getManagedObjects                   = "org.freedesktop.DBus.ObjectManager.GetManagedObjects"

	// patience is how long one reading waits for NetworkManager.
	patience = 2 * time.Second
	// againAfter is when to look whether a NetworkManager that was silent answers.
	againAfter = time.Second
)

// readNM asks NetworkManager for what concerns the kernel's links. When that can't be had, the picture is empty, why
// says why, and again, unless 0, when to try anew.
func (r *Reader) readNM(ctx context.Context, k *vnet.Kernel) (pic picture, again time.Duration, why string) {
	if r.bus == nil {
		return picture{}, 0, "no system bus"
	}
	if r.pending != nil {
		// It didn't answer in time. Every further question would cost as much, so
		// that the old answer is waited for, here as little as elsewhere.
		select {
		case <-r.pending:
			r.pending = nil
		default:
			return picture{}, againAfter, "NetworkManager does not answer"
		}
	}
	all, known, pending, err := getObjects(ctx, r.bus, k, r.known)
	switch {
	case pending != nil:
		r.pending = pending
		return picture{}, againAfter, "NetworkManager does not answer"
	case isAbsent(err):
		return picture{}, 0, "NetworkManager is not running"
	case err != nil:
		return picture{}, 0, err.Error()
	}
	r.known = known
	pic = decode(all)
	pic.profiles = r.profiles.first(ctx, r)
	return pic, 0, ""
}

// isAbsent tells whether the error says that nobody owns NetworkManager's name, or that
// who owned it left before answering.
func isAbsent(err error) bool {
	var e godbus.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Name {
	case "org.freedesktop.DBus.Error.ServiceUnknown",
		"org.freedesktop.DBus.Error.NameHasNoOwner",
		"org.freedesktop.DBus.Error.NoReply":
		return true
	}
	return false
}

// readHost adds what files and a question to the kernel tell.
func (r *Reader) readHost(pic *picture, k *vnet.Kernel) {
	// Without resolv.conf there are no nameservers, which is as good as an empty one.
	if b, err := os.ReadFile(r.resolvConf); err == nil {
		pic.resolv = parseResolvConf(string(b))
	}
	pic.hardware = readHardware("/sys/class/net", pic, k)
	if hasForeignRules(k) {
		if index, err := probeEgress(); err == nil {
			pic.egress, pic.probed = index, true
		}
	}
	pic.egress6 = probeEgress6()
}

// hasForeignRules tells whether there are routing rules other than the kernel's three and
// ours: then the main table alone doesn't tell where the host's packets go.
func hasForeignRules(k *vnet.Kernel) bool {
	for _, rule := range k.Rules {
		standard := !rule.Foreign && rule.IIF == "" && rule.SuppressPrefixLength < 0 &&
			(rule.Table == tableLocal || rule.Table == tableMain || rule.Table == tableDefault)
		if !standard && rule.Protocol != plan.Protocol {
			return true
		}
	}
	return false
}

// probeEgress asks the kernel by which interface it would reach the internet, 0 for none.
// No packet is sent; the address is for documentation (RFC 5737), so that nobody has a
// route of its own for it.
func probeEgress() (int, error) {
	routes, err := netlink.RouteGet([]byte{192, 0, 2, 1})
	switch {
	case isUnreachable(err):
		return 0, nil
	case err != nil:
		return 0, err
	case len(routes) == 0:
		return 0, nil
	}
	return routes[0].LinkIndex, nil
}

// probeEgress6 is likewise for IPv6 (the address: RFC 9637), 0 also when the kernel has no IPv6.
func probeEgress6() int {
	routes, err := netlink.RouteGet([]byte{0: 0x3f, 1: 0xff, 15: 1})
	if err != nil || len(routes) == 0 {
		return 0
	}
	return routes[0].LinkIndex
}

// readHardware finds the Wi-Fi and WWAN interfaces among those whose type NetworkManager
// doesn't tell.
func readHardware(dir string, pic *picture, k *vnet.Kernel) map[string]vnet.UplinkKind {
	told := map[string]bool{}
	for _, d := range pic.devices {
		told[d.name] = d.kind != nm.NmDeviceTypeUnknown && d.kind != nm.NmDeviceTypeGeneric
	}
	kinds := map[string]vnet.UplinkKind{}
	for _, l := range k.Links {
		if l.Kind != "" || l.Loopback || told[l.Name] {
			continue
		}
		path := filepath.Join(dir, l.Name)
		uevent, err := os.ReadFile(filepath.Join(path, "uevent"))
		if err != nil {
			continue
		}
		switch _, err := os.Stat(filepath.Join(path, "phy80211")); {
		case err == nil || strings.Contains(string(uevent), "DEVTYPE=wlan"):
			kinds[l.Name] = vnet.WiFi
		case strings.Contains(string(uevent), "DEVTYPE=wwan"):
			kinds[l.Name] = vnet.WWAN
		}
	}
	return kinds
}
