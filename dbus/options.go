package dbus

import (
	"slices"

	godbus "github.com/godbus/dbus/v5"

	"gangway/service/vnet"
)

// knownOptions checks option dictionaries: every key known, every value of its type, and
// what check says of it.
func knownOptions(values map[string]any, options ...option) error {
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	slices.Sort(keys) // the same culprit is named each time
	for _, key := range keys {
		i := slices.IndexFunc(options, func(o option) bool { return o.key == key })
		if i < 0 {
			return vnet.SettingErrorf(key, "is not an option")
		}
		got := godbus.SignatureOf(values[key]).String()
		if got != options[i].signature {
			return vnet.SettingErrorf(key, "must be of D-Bus type %s, is %s", options[i].signature, got)
		}
		if options[i].check != nil {
			if err := options[i].check(key, values[key]); err != nil {
				return err
			}
		}
	}
	return nil
}

type option struct {
	key, signature string
	check          func(key string, v any) error
}
