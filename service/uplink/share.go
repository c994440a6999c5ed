package uplink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	nm "github.com/Wifx/gonetworkmanager/v3"
	godbus "github.com/godbus/dbus/v5"
	"github.com/vishvananda/netlink"

	"gangway/service/vnet"
)

const (
	// look is how often the state of a change is looked at.
	look = 20 * time.Millisecond
	// undoWithin bounds the way back, NetworkManager's own restart included; onlineWithin how long it is
	// waited for once everything is as before but for the lease: a caller's patience ends at 25 s.
	undoWithin   = 30 * time.Second
	onlineWithin = 8 * time.Second
)

// Share makes an Ethernet uplink a bridge, by two profiles of NetworkManager beside the original, which
// stays as it is: one of a bridge that has the interface's MAC and everything that the original says of
// IP, and one of the interface as its port. It returns when the host is back on line through the bridge, with
// the addresses and default routes that it had. Should that take longer than 15 s, should anything fail,
// or ctx end, everything is put back, and the error says why; NetworkManager does so by itself
// 30 s after the start if this process dies.
//
// An uplink that is a bridge already is left alone, with success. The error is a vnet.Error: NotSupported where
// vnet.Uplink.Unshareable says why, else Failed. It must be called in the network namespace of
// NetworkManager. One Share or Unshare runs at a time; Read and Watch may run beside it.
//
// What is lost: connections from temporary IPv6 addresses (RFC 8981), which are chosen anew, and VPNs over the interface.
func (r *Reader) Share(ctx context.Context, u vnet.Uplink) error {
	if u.SharedFrom != "" || u.Bridge != "" || u.Kind == vnet.BridgeKind {
		return nil
	}
	if u.Unshareable == "" && r.bus == nil {
		u.Unshareable = "no system bus"
	}
	if u.Unshareable != "" {
		return vnet.Errorf(vnet.NotSupported, "cannot share %q: %s", u.Interface, u.Unshareable)
	}
	err := r.change(ctx, func() error { return r.share(ctx, u.Interface) })
	return shareError("share", u.Interface, err)
}

func shareError(verb, ifname string, err error) error {
	var known *vnet.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return known
	}
	return vnet.Errorf(vnet.Failed, "cannot %s %q: %v", verb, ifname, err)
}

// change runs f alone, and afterwards has the next reading see its profiles.
func (r *Reader) change(ctx context.Context, f func() error) error {
	select {
	case r.changing <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-r.changing }()
	err := f()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), profilesPatience)
	defer cancel()
	if list, err := readProfiles(ctx, r.bus); err == nil {
		r.profiles.put(list)
	}
	return err
}

func (r *Reader) share(ctx context.Context, ifname string) error {
	o, dev, before, err := r.readOrigin(ctx, ifname)
	if err != nil {
		return err
	}
	p := decodeProfile(o.profile)
	if p.sharedFrom != "" && p.master != "" {
		return nil // by somebody else's Share, since the reading
	}
	if why := unshareableProfile(p); why != "" {
		return vnet.Errorf(vnet.NotSupported, "cannot share %q: %s", ifname, why)
	}
	list, err := readProfiles(ctx, r.bus)
	if err != nil {
		return err
	}
	// A pair that isn't in force, since somebody activated the original by hand.
	for _, old := range sharesOf(list) {
		if old.port != ifname {
			continue
		}
		if err := r.forget(ctx, old); err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(p profile) bool { return p.uuid == old.portUUID || p.uuid == old.bridgeUUID })
	}
	name := bridgeName(ifname, func(name string) bool {
		_, err := netlink.LinkByName(name)
		return err == nil || slices.ContainsFunc(list, func(p profile) bool { return p.ifname == name })
	})
	s := share{bridge: name, port: ifname, bridgeUUID: randomUUID(), portUUID: randomUUID(), original: o.uuid(), originalID: o.id()}

	checkpoint, err := r.secure(ctx, true, dev.path)
	if err != nil {
		return err
	}
	begun := time.Now()
	if err = r.join(ctx, &o, s, dev.path, before); err == nil {
		err = r.keep(ctx, checkpoint)
	}
	if err != nil {
		defer hastenDAD(ifname)()
		return r.undo(ctx, err, checkpoint, func(ctx context.Context) (bool, error) { return r.unjoin(ctx, s) })
	}
	r.log.Info("shared an uplink", "interface", ifname, "bridge", name, "took", time.Since(begun).Round(time.Millisecond))
	return nil
}

// join adds the two profiles and has NetworkManager bring bridge and port up.
func (r *Reader) join(ctx context.Context, o *origin, s share, dev godbus.ObjectPath, before presence) error {
	if err := r.addProfile(ctx, bridgeProfile(o, s.bridgeUUID, s.bridge)); err != nil {
		return err
	}
	if err := r.addProfile(ctx, portProfile(o, s.portUUID, s.bridgeUUID)); err != nil {
		return err
	}
	restore, err := r.raise(ctx, s, dev)
	defer restore()
	if err != nil {
		return err
	}
	return r.await(ctx, s.bridge, s.bridgeUUID, before)
}

// raise activates bridge and port. The bridge comes first and waits for a carrier, so that all is
// ready when the interface loses its addresses. The caller restores DAD when they are on the bridge.
func (r *Reader) raise(ctx context.Context, s share, dev godbus.ObjectPath) (restore func(), err error) {
	restore = func() {}
	if err := r.activate(ctx, s.bridgeUUID, noObject); err != nil {
		return restore, err
	}
	err = r.until(ctx, func() (bool, error) {
		_, err := netlink.LinkByName(s.bridge)
		return err == nil, nil
	})
	if err != nil {
		return restore, fmt.Errorf("cannot see NetworkManager make %q: %w", s.bridge, err)
	}
	restore = hastenDAD(s.bridge)
	return restore, r.activate(ctx, s.portUUID, dev)
}

// unjoin is one step back from whatever became of join: no profile of ours, no bridge, the original in
// force. It is to be repeated until done.
func (r *Reader) unjoin(ctx context.Context, s share) (done bool, err error) {
	if err := r.forget(ctx, s); err != nil {
		return false, err
	}
	dev, err := r.device(ctx, s.port)
	if err != nil {
		return false, err
	}
	if dev.uuid != s.original {
		return false, r.activate(ctx, s.original, dev.path)
	}
	// A NetworkManager that was started anew may take the bridge for somebody else's.
	if link, err := netlink.LinkByName(s.bridge); err == nil && dev.state > nm.NmDeviceStatePrepare {
		if err := netlink.LinkDel(link); err != nil {
			return false, fmt.Errorf("cannot delete bridge %q: %w", s.bridge, err)
		}
	}
	return dev.state == nm.NmDeviceStateActivated, nil
}

// forget deletes our profiles, and with them the bridge.
func (r *Reader) forget(ctx context.Context, s share) error {
	return errors.Join(r.deleteProfile(ctx, s.portUUID), r.deleteProfile(ctx, s.bridgeUUID))
}
