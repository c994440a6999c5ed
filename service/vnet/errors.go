package vnet

import (
	"errors"
	"fmt"
)

// ErrorKind says what went wrong in the terms of the D-Bus contract: its text is
// the last element of the error name org.gangway.Gangway1.Error.X.
type ErrorKind string

// The error kinds that callers may look for.
const (
	NetworkExists  ErrorKind = "NetworkExists"
	NoSuchNetwork  ErrorKind = "NoSuchNetwork"
	NoSuchUplink   ErrorKind = "NoSuchUplink"
	InvalidSetting ErrorKind = "InvalidSetting"
	SubnetConflict ErrorKind = "SubnetConflict"
	InUse          ErrorKind = "InUse"
	NotSupported   ErrorKind = "NotSupported"
	NotShared      ErrorKind = "NotShared"
	LimitExceeded  ErrorKind = "LimitExceeded"
	Failed         ErrorKind = "Failed"
)

// Error is an error with a kind that reaches the caller on the bus.
type Error struct {
	Kind ErrorKind
	// Key is the setting or option at fault, "" when the error isn't about one.
	Key string
	// Message is one sentence that names the culprit.
	Message string
}

func (e *Error) Error() string { return e.Message }

// Errorf makes an Error of the kind.
func Errorf(kind ErrorKind, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// SettingErrorf makes an InvalidSetting error that names the setting's key.
func SettingErrorf(key, format string, args ...any) *Error {
	return &Error{Kind: InvalidSetting, Key: key,
		Message: fmt.Sprintf("setting %q: ", key) + fmt.Sprintf(format, args...)}
}

// KindOf returns the kind of the first Error in err's chain, Failed when there is none.
func KindOf(err error) ErrorKind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Failed
}
