package uplink

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	nm "github.com/Wifx/gonetworkmanager/v3"
	godbus "github.com/godbus/dbus/v5"

	"gangway/service/vnet"
)

// Unshare takes back what Share did to an uplink, given by its bridge or its port: the original profile is activated
// and ours are deleted. Where somebody deleted the original, it is made anew of ours. It returns when the host
// is back on line by the interface; otherwise it is shared again as in Share, and the error is
// of kind Failed. Where our profiles are there but not in force, since somebody activated the original by
// hand, they are deleted. An uplink that Share didn't make is left alone, with success.
func (r *Reader) Unshare(ctx context.Context, u vnet.Uplink) error {
	concerned := func(s share) bool { return s.bridge == u.Interface || s.port == u.Interface }
	if r.bus == nil || u.SharedFrom == "" && u.Bridge == "" && !slices.ContainsFunc(sharesOf(r.profiles.cached()), concerned) {
		return nil
	}
	err := r.change(ctx, func() error {
		list, err := readProfiles(ctx, r.bus)
		if err != nil {
			return err
		}
		all := sharesOf(list)
		if i := slices.IndexFunc(all, concerned); i >= 0 {
			return r.unshare(ctx, all[i])
		}
		return nil // unshared since the reading
	})
	return shareError("unshare", u.Interface, err)
}

func (r *Reader) unshare(ctx context.Context, s share) error {
	if s.originalID == "" {
		if err := r.restoreOriginal(ctx, s); err != nil {
			return err
		}
	}
	port, err := r.device(ctx, s.port)
	if isGone(err) || err == nil && port.uuid != s.portUUID {
		return r.forget(ctx, s) // pulled out, or used otherwise: nothing is on line by the bridge
	}
	if err != nil {
		return err
	}
	bridge, err := r.device(ctx, s.bridge)
	if err != nil {
		return err
	}
	before, err := r.presenceBy(ctx, s.bridge, &bridge)
	if err != nil {
		return err
	}
	checkpoint, err := r.secure(ctx, false, port.path, bridge.path)
	if err != nil {
		return err
	}
	begun := time.Now()
	if err = r.part(ctx, s, port.path, bridge.active, before); err == nil {
		err = r.keep(ctx, checkpoint)
	}
	if err != nil {
		restore := func() {}
		defer func() { restore() }()
		return r.undo(ctx, err, checkpoint, func(ctx context.Context) (bool, error) { return r.unpart(ctx, s, &restore) })
	}
	r.log.Info("unshared an uplink", "interface", s.port, "bridge", s.bridge, "took", time.Since(begun).Round(time.Millisecond))
	return r.forget(ctx, s)
}

// presenceBy is the presence by an interface as far as its profile accounts for it.
func (r *Reader) presenceBy(ctx context.Context, ifname string, d *nmDevice) (presence, error) {
	p, err := presenceOf(ifname)
	if err != nil {
		return p, err
	}
	profile, err := r.settingsOf(ctx, d.connection)
	if err != nil {
		return p, fmt.Errorf("cannot read the profile of %q: %w", ifname, err)
	}
	return p.configured(profile, r.leased(ctx, d)), nil
}

// leased is the address by DHCPv4, the zero one if there is none.
func (r *Reader) leased(ctx context.Context, d *nmDevice) netip.Addr {
	return parseAddr(get[string](r.dhcpOptions(ctx, d, "Dhcp4Config", "DHCP4Config"), "ip_address"))
}

// part activates the original profile and takes the bridge down.
func (r *Reader) part(ctx context.Context, s share, dev, bridge godbus.ObjectPath, before presence) error {
	defer hastenDAD(s.port)()
	if err := r.activate(ctx, s.original, dev); err != nil {
		return err
	}
	// At once: its routes would win over the interface's.
	if err := r.deactivate(ctx, bridge); err != nil {
		return err
	}
	return r.await(ctx, s.port, s.original, before)
}

// unpart is one step back from whatever became of part. It is to be repeated until done; restore is to be
// called then.
func (r *Reader) unpart(ctx context.Context, s share, restore *func()) (done bool, err error) {
	dev, err := r.device(ctx, s.port)
	if err != nil {
		return false, err
	}
	if dev.uuid != s.portUUID {
		(*restore)()
		*restore, err = r.raise(ctx, s, dev.path)
		return false, err
	}
	bridge, err := r.device(ctx, s.bridge)
	return err == nil && bridge.uuid == s.bridgeUUID && bridge.state == nm.NmDeviceStateActivated, err
}

// restoreOriginal makes the original profile of ours, if somebody deleted it.
func (r *Reader) restoreOriginal(ctx context.Context, s share) error {
	var both [2]settings
	for i, uuid := range []string{s.bridgeUUID, s.portUUID} {
		path, err := r.profileByUUID(ctx, uuid)
		if err == nil {
			both[i], err = r.settingsOf(ctx, path)
		}
		if err != nil {
			return fmt.Errorf("cannot read profile %q: %w", uuid, err)
		}
	}
	return r.addProfile(ctx, originalProfile(both[0], both[1], s.original))
}
