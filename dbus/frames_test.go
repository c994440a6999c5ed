package dbus

import (
	"bytes"
	"encoding/binary"
	"testing"

	godbus "github.com/godbus/dbus/v5"
)

func encoded(t testing.TB, msg *godbus.Message, order binary.ByteOrder) []byte {
	var b bytes.Buffer
	if err := msg.EncodeTo(&b, order); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func callFrom(sender string, body ...any) *godbus.Message {
	msg := &godbus.Message{Type: godbus.TypeMethodCall, Body: body, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldSender:      godbus.MakeVariant(sender),
		godbus.FieldDestination: godbus.MakeVariant(BusName),
		godbus.FieldPath:        godbus.MakeVariant(RootPath),
		godbus.FieldMember:      godbus.MakeVariant("M"),
	}}
	if len(body) > 0 {
		msg.Headers[godbus.FieldSignature] = godbus.MakeVariant(godbus.SignatureOf(body...))
	}
	return msg
}

func TestSenderOf(t *testing.T) {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		for range 20 { // the fields come in random order
			if got := senderOf(encoded(t, callFrom(":1.77", "text"), order), order); got != ":1.77" {
				t.Fatalf("sender %q in %s", got, order)
			}
		}
	}
}

// The header of a message that isn't let through is read without godbus: no header makes that panic.
func FuzzSenderOf(f *testing.F) {
	f.Add(encoded(f, callFrom(":1.77", "text"), binary.LittleEndian))
	f.Add(encoded(f, callFrom(":1.77"), binary.BigEndian))
	f.Fuzz(func(t *testing.T, header []byte) {
		if len(header) < fixedSize {
			return
		}
		for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
			if sender := senderOf(header, order); !bytes.Contains(header, []byte(sender)) {
				t.Fatalf("the sender %q isn't in the header", sender)
			}
		}
	})
}
