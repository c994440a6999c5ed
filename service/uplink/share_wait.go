package uplink

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	nm "github.com/Wifx/gonetworkmanager/v3"
	godbus "github.com/godbus/dbus/v5"
)

// until looks again and again until the condition holds, for shareWithin at most. An error of the condition
// ends it.
func (r *Reader) until(ctx context.Context, condition func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, r.shareWithin)
	defer cancel()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		if ok, err := condition(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// await waits until the interface is activated with the profile and the host is on line by it as before.
// IPv4 is insisted on; a router may take its time to answer a solicitation, so that IPv6 is where the
// host has IPv4.
func (r *Reader) await(ctx context.Context, ifname, uuid string, before presence) error {
	lack := ""
	online := false // by IPv4, at least
	err := r.until(ctx, func() (bool, error) {
		dev, err := r.device(ctx, ifname)
		switch {
		case isAbsent(err):
			return false, errors.New("NetworkManager left in the midst of it")
		case isGone(err): // comes, or goes
			lack = "NetworkManager has no device " + ifname
			return false, nil
		case err != nil:
			return false, err
		}
		online = false
		if dev.state == nm.NmDeviceStateFailed {
			return false, fmt.Errorf("NetworkManager's activation of %s failed: %s", ifname, words(dev.reason))
		}
		if dev.state != nm.NmDeviceStateActivated || dev.uuid != uuid {
			lack = fmt.Sprintf("NetworkManager is at %s with %s", strings.TrimPrefix(dev.state.String(), "NmDeviceState"), ifname)
			return false, nil
		}
		now, err := presenceOf(ifname)
		if err != nil {
			return false, err
		}
		if lack = before.lacks(now, false); lack != "" {
			return false, nil
		}
		online = before.has4()
		lack = before.lacks(now, true)
		return lack == "", nil
	})
	switch {
	case err == nil:
		return nil
	case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) && online:
		r.log.Warn("IPv6 is not back yet", "interface", ifname, "why", lack)
		return nil
	case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s after %v", lack, r.shareWithin)
	}
	return err
}

// words are a reason of NetworkManager's without its prefix.
func words(reason nm.NmDeviceStateReason) string {
	return strings.TrimPrefix(reason.String(), "NmDeviceStateReason")
}

// undo takes steps back until all is as it was, also when ctx has ended or NetworkManager has to be
// waited for, and returns why, with what came of it.
func (r *Reader) undo(ctx context.Context, why error, checkpoint godbus.ObjectPath, back func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoWithin)
	defer cancel()
	tick := time.NewTicker(5 * look)
	defer tick.Stop()
	var under time.Time // since when the way back goes well
	for {
		done, err := back(ctx)
		switch {
		case done:
			return fmt.Errorf("%w; rolled back", why)
		case err != nil:
			under = time.Time{}
		case under.IsZero():
			under = time.Now()
			// What goes well needs no rollback; the checkpoint may be gone with a former NetworkManager.
			_ = r.keep(ctx, checkpoint)
		case time.Since(under) > onlineWithin:
			return fmt.Errorf("%w; rolled back, and NetworkManager is still trying to get on line", why)
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = context.Cause(ctx)
			}
			return fmt.Errorf("%w; cannot roll back: %w", why, err)
		case <-tick.C:
		}
	}
}
