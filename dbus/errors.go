package dbus

import (
	"context"
	"errors"
	"fmt"

	godbus "github.com/godbus/dbus/v5"

	"gangway/policy"
	"gangway/service/vnet"
)

// The standard errors that we use.
const (
	errAccessDenied        = "org.freedesktop.DBus.Error.AccessDenied"
	errInteractionRequired = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
	errInvalidArgs         = "org.freedesktop.DBus.Error.InvalidArgs"
	errUnknownObject       = "org.freedesktop.DBus.Error.UnknownObject"
	errUnknownInterface    = "org.freedesktop.DBus.Error.UnknownInterface"
	errUnknownMethod       = "org.freedesktop.DBus.Error.UnknownMethod"
	errUnknownProperty     = "org.freedesktop.DBus.Error.UnknownProperty"
	errPropertyReadOnly    = "org.freedesktop.DBus.Error.PropertyReadOnly"

	ourErrors = "org.gangway.Gangway1.Error."
)

// errorNames is the table of our errors: every kind has its name.
var errorNames = map[vnet.ErrorKind]string{
	vnet.NetworkExists:  ourErrors + "NetworkExists",
	vnet.NoSuchNetwork:  ourErrors + "NoSuchNetwork",
	vnet.NoSuchUplink:   ourErrors + "NoSuchUplink",
	vnet.InvalidSetting: ourErrors + "InvalidSetting",
	vnet.SubnetConflict: ourErrors + "SubnetConflict",
	vnet.InUse:          ourErrors + "InUse",
	vnet.NotSupported:   ourErrors + "NotSupported",
	vnet.NotShared:      ourErrors + "NotShared",
	vnet.LimitExceeded:  ourErrors + "LimitExceeded",
	vnet.Failed:         ourErrors + "Failed",
}

// fault makes a standard error with a text.
func fault(name, format string, args ...any) *godbus.Error {
	return godbus.NewError(name, []any{fmt.Sprintf(format, args...)})
}

// errorFor returns the name and the text by which the caller learns of err.
func errorFor(err error) (name, message string) {
	var (
		standard *godbus.Error
		ours     *vnet.Error
		denied   *policy.Denied
	)
	switch {
	case errors.As(err, &standard):
		return standard.Name, standard.Error()
	case errors.As(err, &denied) && denied.CouldAsk:
		return errInteractionRequired, denied.Error()
	case errors.As(err, &denied):
		return errAccessDenied, denied.Error()
	case errors.Is(err, policy.ErrBusy):
		return errorNames[vnet.LimitExceeded], err.Error()
	case errors.As(err, &ours):
		if name, ok := errorNames[ours.Kind]; ok {
			// The whole chain's text: what was wrapped around it says where it happened.
			return name, err.Error()
		}
	case errors.Is(err, context.DeadlineExceeded):
		return errorNames[vnet.Failed], "it took too long and was given up; the state shows how far it came"
	case errors.Is(err, context.Canceled):
		return errorNames[vnet.Failed], "the daemon is shutting down"
	}
	return errorNames[vnet.Failed], err.Error()
}
