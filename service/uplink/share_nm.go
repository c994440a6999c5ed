package uplink

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	nm "github.com/Wifx/gonetworkmanager/v3"
	godbus "github.com/godbus/dbus/v5"
)

const (
	settingsPath godbus.ObjectPath = nm.SettingsObjectPath
	noObject     godbus.ObjectPath = "/"

	// callPatience bounds one call that changes something: a profile is written to disk within.
	callPatience = 5 * time.Second

	// Of nm-dbus-interface.h, which gonetworkmanager lacks: NM_SETTINGS_ADD_CONNECTION2_FLAG_TO_DISK and
	// _BLOCK_AUTOCONNECT.
	addToDisk           = 0x01
	addBlockAutoconnect = 0x20
)

// call makes one call to NetworkManager and stores its results.
func (r *Reader) call(ctx context.Context, path godbus.ObjectPath, method string, args []any, results ...any) error {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	return r.bus.Object(nmName, path).CallWithContext(ctx, method, godbus.FlagNoAutoStart, args...).Store(results...)
}

func (r *Reader) getAll(ctx context.Context, path godbus.ObjectPath, iface string) (properties, error) {
	var p properties
	err := r.call(ctx, path, getAll, []any{iface}, &p)
	return p, err
}

// nmDevice is a device of NetworkManager as Share and Unshare see it.
type nmDevice struct {
	path   godbus.ObjectPath
	state  nm.NmDeviceState
	reason nm.NmDeviceStateReason
	// active is its active connection, noObject if none; uuid and connection are that one's profile.
	active, connection godbus.ObjectPath
	uuid               string
	properties         properties
}

// device looks an interface up; an interface that NetworkManager doesn't know is an error.
func (r *Reader) device(ctx context.Context, ifname string) (d nmDevice, err error) {
	if err := r.call(ctx, nmPath, byInterface, []any{ifname}, &d.path); err != nil {
		return d, err
	}
	if d.properties, err = r.getAll(ctx, d.path, nm.DeviceInterface); err != nil {
		return d, err
	}
	d.state = nm.NmDeviceState(get[uint32](d.properties, nm.DevicePropertyState))
	if pair := get[[]any](d.properties, "StateReason"); len(pair) == 2 {
		reason, _ := pair[1].(uint32)
		d.reason = nm.NmDeviceStateReason(reason)
	}
	d.active = get[godbus.ObjectPath](d.properties, nm.DevicePropertyActiveConnection)
	if d.active == "" || d.active == noObject {
		d.active = noObject
		return d, nil
	}
	p, err := r.getAll(ctx, d.active, nm.ActiveConnectionInterface)
	if err != nil && !isGone(err) {
		return d, err
	}
	d.uuid, d.connection = get[string](p, nm.ActiveConnectionPropertyUuid), get[godbus.ObjectPath](p, nm.ActiveConnectionPropertyConnection)
	return d, nil
}

// isGone tells whether the error says that an object does not exist (any more).
func isGone(err error) bool {
	var e godbus.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Name {
	case "org.freedesktop.DBus.Error.UnknownObject", "org.freedesktop.DBus.Error.UnknownMethod", "org.freedesktop.DBus.Error.UnknownInterface",
		nmName + ".UnknownDevice", nmName + ".UnknownConnection", nmName + ".ConnectionNotActive",
		nmName + ".Settings.InvalidConnection":
		return true
	}
	return false
}

// profileByUUID returns where a profile is, "" if there is none of that UUID.
func (r *Reader) profileByUUID(ctx context.Context, uuid string) (path godbus.ObjectPath, err error) {
	err = r.call(ctx, settingsPath, nm.SettingsGetConnectionByUUID, []any{uuid}, &path)
	if isGone(err) {
		return "", nil
	}
	return path, err
}

func (r *Reader) settingsOf(ctx context.Context, path godbus.ObjectPath) (settings, error) {
	var s settings
	err := r.call(ctx, path, nm.ConnectionGetSettings, nil, &s)
	return s, err
}

// addProfile stores a profile; it isn't activated by itself before it was activated once.
func (r *Reader) addProfile(ctx context.Context, s settings) error {
	var path godbus.ObjectPath
	var result properties
	err := r.call(ctx, settingsPath, nm.SettingsInterface+".AddConnection2", []any{s, uint32(addToDisk | addBlockAutoconnect), properties{}}, &path, &result)
	if err != nil {
		return fmt.Errorf("cannot add profile %q: %w", get[string](s["connection"], "id"), err)
	}
	return nil
}

// deleteProfile deletes the profile of the UUID, if there is one.
func (r *Reader) deleteProfile(ctx context.Context, uuid string) error {
	path, err := r.profileByUUID(ctx, uuid)
	if err != nil || path == "" {
		return err
	}
	if err := r.call(ctx, path, nm.ConnectionDelete, nil); err != nil && !isGone(err) {
		return fmt.Errorf("cannot delete profile %q: %w", uuid, err)
	}
	return nil
}

// activate begins the activation of the profile of the UUID, on the device, or on none that is there yet.
func (r *Reader) activate(ctx context.Context, uuid string, device godbus.ObjectPath) error {
	path, err := r.profileByUUID(ctx, uuid)
	if err == nil && path == "" {
		err = errors.New("it is gone")
	}
	if err == nil {
		var active godbus.ObjectPath
		err = r.call(ctx, nmPath, nm.NetworkManagerActivateConnection, []any{path, device, noObject}, &active)
	}
	if err != nil {
		return fmt.Errorf("cannot activate profile %q: %w", uuid, err)
	}
	return nil
}

// deactivate takes an active connection down, if it is there.
func (r *Reader) deactivate(ctx context.Context, active godbus.ObjectPath) error {
	err := r.call(ctx, nmPath, nm.NetworkManagerDeactivateConnection, []any{active})
	if err != nil && !isGone(err) {
		return fmt.Errorf("cannot deactivate %q: %w", active, err)
	}
	return nil
}

// secure has NetworkManager put the devices back by itself, should we not live to keep or undo what comes
// next; profiles that were added meanwhile go if added is set. Devices that come into being afterwards are not covered.
func (r *Reader) secure(ctx context.Context, added bool, devices ...godbus.ObjectPath) (path godbus.ObjectPath, err error) {
	flags := nm.NmCheckpointCreateFlagsNone
	if added {
		flags = nm.NmCheckpointCreateFlagsDeleteNewConnections
	}
	err = r.call(ctx, nmPath, nm.NetworkManagerCheckpointCreate, []any{devices, uint32(r.rollbackAfter / time.Second), uint32(flags)}, &path)
	if err != nil {
		return "", fmt.Errorf("cannot create a checkpoint: %w", err)
	}
	return path, nil
}

// keep gives the checkpoint up: what was done since stays. An error means that NetworkManager has
// rolled back already, or left.
func (r *Reader) keep(ctx context.Context, checkpoint godbus.ObjectPath) error {
	if err := r.call(ctx, nmPath, nm.NetworkManagerCheckpointDestroy, []any{checkpoint}); err != nil {
		return fmt.Errorf("cannot keep the change: %w", err)
	}
	return nil
}

func randomUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return newUUID(b)
}
