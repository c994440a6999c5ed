package dbus

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"gangway/service/vnet"
)

// variants is a D-Bus a{sv}.
type variants = map[string]godbus.Variant

// clean makes text that may come from guests or files fit for the bus: a string with bytes that
// aren't UTF-8, or with a NUL, would take the whole message with it.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

func textVariant[T ~string](s T) godbus.Variant { return godbus.MakeVariant(clean(string(s))) }

func prefixText(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// texts makes a D-Bus as; an address's zone is cleaned, too.
func texts[T any](list []T, text func(T) string) godbus.Variant {
	out := make([]string, 0, len(list))
	for _, v := range list {
		out = append(out, clean(text(v)))
	}
	return godbus.MakeVariant(out)
}

// settingsVariant makes a D-Bus a{sv} of plain Go values.
func settingsVariant(values map[string]any) godbus.Variant {
	out := make(variants, len(values))
	for key, v := range values {
		out[key] = variantOf(v)
	}
	return godbus.MakeVariant(out)
}

// variantOf is the reverse of plain. A type other than those of vnet.Field is a bug.
func variantOf(v any) godbus.Variant {
	switch v := v.(type) {
	case bool, uint32:
		return godbus.MakeVariant(v)
	case string:
		return textVariant(v)
	case []map[string]any:
		list := make([]variants, 0, len(v))
		for _, entry := range v {
			m := make(variants, len(entry))
			for key, value := range entry {
				m[key] = variantOf(value)
			}
			list = append(list, m)
		}
		return godbus.MakeVariant(list)
	}
	panic(fmt.Sprintf("a setting of type %T has no D-Bus type", v))
}

// plainValues makes plain Go values of a D-Bus a{sv}: what vnet.Settings.Merge takes. Types that no setting
// has are left as they are; Merge rejects them.
func plainValues(in variants) map[string]any {
	out := make(map[string]any, len(in))
	for key, v := range in {
		out[key] = plain(v)
	}
	return out
}

func plain(v godbus.Variant) any {
	list, ok := v.Value().([]map[string]godbus.Variant)
	if !ok {
		return v.Value()
	}
	out := make([]map[string]any, 0, len(list))
	for _, entry := range list {
		out = append(out, plainValues(entry))
	}
	return out
}

// microseconds is a time of CLOCK_MONOTONIC as the contract writes it.
func microseconds(d time.Duration) uint64 { return uint64(max(d, 0) / time.Microsecond) }

func leaseValues(l *vnet.Lease) variants {
	var expires uint64
	if !l.Expires.IsZero() {
		expires = uint64(max(l.Expires.Unix(), 1)) // 0 means never
	}
	ipv6 := make([]string, 0, len(l.IPv6))
	for _, a := range l.IPv6 {
		ipv6 = append(ipv6, a.String())
	}
	return variants{
		"mac":      textVariant(l.MAC),
		"address":  godbus.MakeVariant(addrText(l.Address)),
		"hostname": textVariant(l.Hostname),
		"expires":  godbus.MakeVariant(expires),
		"ipv6":     godbus.MakeVariant(ipv6),
	}
}

func portValues(p *vnet.Port) variants {
	return variants{
		"interface": textVariant(p.Interface),
		"kind":      textVariant(p.Kind),
		"mac":       textVariant(p.MAC),
		"owner":     godbus.MakeVariant(p.Owner),
		"rx-bytes":  godbus.MakeVariant(p.RxBytes),
		"tx-bytes":  godbus.MakeVariant(p.TxBytes),
	}
}
