package bus

import (
	"errors"
	"strings"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"gangway/dbus"
)

// call calls a method of ours and returns the reply and the error's name, "" if none.
func call(conn *godbus.Conn, path godbus.ObjectPath, member string, args ...any) ([]any, string, string) {
	return callFlags(conn, 0, path, member, args...)
}

func callFlags(conn *godbus.Conn, flags godbus.Flags, path godbus.ObjectPath, member string, args ...any) ([]any, string, string) {
	c := send(conn, flags, path, member, args...)
	select {
	case <-c.Done:
	case <-time.After(patience):
		return nil, "no reply", "to " + member
	}
	var e godbus.Error
	switch {
	case errors.As(c.Err, &e):
		return nil, e.Name, e.Error()
	case c.Err != nil:
		return nil, "broken call", c.Err.Error()
	}
	return c.Body, "", ""
}

func send(conn *godbus.Conn, flags godbus.Flags, path godbus.ObjectPath, member string, args ...any) *godbus.Call {
	dot := strings.LastIndexByte(member, '.')
	msg := &godbus.Message{Type: godbus.TypeMethodCall, Flags: flags, Body: args, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldDestination: godbus.MakeVariant(dbus.BusName),
		godbus.FieldPath:        godbus.MakeVariant(path),
		godbus.FieldMember:      godbus.MakeVariant(member[dot+1:]),
	}}
	if dot > 0 {
		msg.Headers[godbus.FieldInterface] = godbus.MakeVariant(member[:dot])
	}
	if len(args) > 0 {
		msg.Headers[godbus.FieldSignature] = godbus.MakeVariant(godbus.SignatureOf(args...))
	}
	return conn.Send(msg, make(chan *godbus.Call, 1))
}
