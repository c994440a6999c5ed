package service

import (
	"context"
	"slices"
	"time"

	"gangway/service/vnet"
)

// sharingPatience bounds how long SetSharing waits until the uplinks show what NetworkManager has done.
const sharingPatience = 5 * time.Second

// SetSharing sets the uplink's mode of sharing, auto, bridge or never, for NetworkManager's connection that
// is active on it, and returns when it is in force: for bridge, when the host is on line again through the
// bridge. An error (NoSuchUplink, NotSupported with the reason, Failed) leaves everything as it was.
func (s *Service) SetSharing(ctx context.Context, ifname, mode string) error {
	s.sharing.Lock()
	defer s.sharing.Unlock()
	u, exists := s.Snapshot().Uplink(ifname)
	if !exists {
		return vnet.Errorf(vnet.NoSuchUplink, "there is no uplink %q", ifname)
	}
	names := namesOf(s.Snapshot(), u)
	uuid := u.ConnectionUUID
	made := u.SharedFrom != "" || u.Bridge != ""
	if made && u.SharedFrom != "" {
		uuid = u.SharedFrom
	}
	switch {
	case mode == "bridge" && !made:
		if err := s.rooms.Uplinks.Share(ctx, u.Uplink); err != nil {
			return err
		}
	case mode != "bridge" && made:
		if err := s.rooms.Uplinks.Unshare(ctx, u.Uplink); err != nil {
			return err
		}
	case mode == "never" && uuid == "":
		return vnet.Errorf(vnet.NotSupported, "NetworkManager has no connection on %s to store this for", ifname)
	}
	if uuid != "" {
		if err := s.setNeverShared(ctx, uuid, mode == "never"); err != nil {
			return err
		}
	}
	if u.Kind == vnet.BridgeKind && !made && mode == "bridge" {
		mode = "auto" // a bridge of the user's is used as it is
	}
	return s.awaitSharing(ctx, names, mode)
}

func (s *Service) setNeverShared(ctx context.Context, uuid string, never bool) error {
	return s.do(ctx, "", func() (func() error, error) {
		err := s.rooms.Store.SetNeverShared(uuid, never)
		return func() error { return s.rooms.Store.SetNeverShared(uuid, !never) }, err
	})
}

// namesOf returns the interface names by which the uplink may be known before and after: its own, and
// those of the bridge that was made of it, or of that bridge's port.
func namesOf(snapshot *vnet.Snapshot, u vnet.UplinkState) []string {
	names := []string{u.Interface}
	if u.Bridge != "" {
		names = append(names, u.Bridge)
	}
	for _, other := range snapshot.Uplinks {
		if other.Bridge == u.Interface {
			names = append(names, other.Interface)
		}
	}
	return names
}

// awaitSharing waits until the published uplinks show the mode, and no other.
func (s *Service) awaitSharing(ctx context.Context, names []string, mode string) error {
	shown := func(snapshot *vnet.Snapshot) bool {
		found := false
		for _, u := range snapshot.Uplinks {
			if slices.Contains(names, u.Interface) {
				if u.Sharing != mode {
					return false
				}
				found = true
			}
		}
		return found
	}
	changed := make(chan struct{}, 1)
	cancel := s.Subscribe(func(*vnet.Snapshot, []vnet.Event) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	defer cancel()
	s.Poke("sharing was set")
	deadline := time.NewTimer(sharingPatience)
	defer deadline.Stop()
	for !shown(s.Snapshot()) {
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return vnet.Errorf(vnet.Failed, "NetworkManager has set sharing of %s to %s, but it does not show", names[0], mode)
		}
	}
	return nil
}
