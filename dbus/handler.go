package dbus

import (
	"sync/atomic"

	godbus "github.com/godbus/dbus/v5"
)

// board is the godbus.Handler of a connection. godbus looks up an object, an interface and a
// method, none of which tells who asks; only the ArgumentDecoder sees the message. So every
// look-up succeeds, and the decoder takes the message out of godbus's hands: we answer it
// ourselves, in our order, and godbus thinks that no reply is expected.
type board struct{ server atomic.Pointer[Server] }

func (b *board) LookupObject(path godbus.ObjectPath) (godbus.ServerObject, bool) {
	return incoming{board: b}, true
}

type incoming struct{ board *board }

func (i incoming) LookupInterface(string) (godbus.Interface, bool) { return i, true }
func (i incoming) LookupMethod(string) (godbus.Method, bool)       { return i, true }
func (incoming) NumArguments() int                                 { return 0 }
func (incoming) NumReturns() int                                   { return 0 }
func (incoming) ArgumentValue(int) any                             { return nil }
func (incoming) ReturnValue(int) any                               { return nil }

// DecodeArguments makes a request of the message, which godbus hands over in a goroutine of its own.
func (incoming) DecodeArguments(conn *godbus.Conn, sender string, msg *godbus.Message, args []any) ([]any, error) {
	r := &request{conn: conn, sender: sender, serial: msg.Serial(), flags: msg.Flags, args: args}
	r.path, _ = msg.Headers[godbus.FieldPath].Value().(godbus.ObjectPath)
	r.iface, _ = msg.Headers[godbus.FieldInterface].Value().(string)
	r.member, _ = msg.Headers[godbus.FieldMember].Value().(string)
	if signature, ok := msg.Headers[godbus.FieldSignature].Value().(godbus.Signature); ok {
		r.signature = signature.String()
	}
	msg.Flags |= godbus.FlagNoReplyExpected
	return []any{r}, nil
}

// Call serves the request; it never fails, as the request answers for itself.
func (i incoming) Call(args ...any) ([]any, error) {
	r := args[0].(*request)
	if server := i.board.server.Load(); server != nil {
		server.serve(r)
	} else {
		r.fail(fault(errUnknownObject, "there is no object %s yet", r.path))
	}
	return nil, nil
}

// routePeer brings Peer's methods to us, which godbus would answer itself: GetMachineId with the
// bus's GUID. It takes the interface away, and serve finds the method by its name, which no
// interface of ours has.
func routePeer(msg *godbus.Message) {
	if msg.Type != godbus.TypeMethodCall || msg.Headers[godbus.FieldInterface].Value() != peer {
		return
	}
	member, _ := msg.Headers[godbus.FieldMember].Value().(string)
	if _, ours := peerMethods[member]; ours {
		delete(msg.Headers, godbus.FieldInterface)
	}
}

// request is a method call that waits for its answer.
type request struct {
	conn          *godbus.Conn
	path          godbus.ObjectPath
	iface, member string // iface may be ""
	sender        string
	serial        uint32
	flags         godbus.Flags
	signature     string
	args          []any
	answered      bool
}

// reply answers with the values, once.
func (r *request) reply(body []any) {
	if r.answered || r.flags&godbus.FlagNoReplyExpected != 0 {
		return
	}
	r.answered = true
	msg := &godbus.Message{Type: godbus.TypeMethodReply, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldDestination: godbus.MakeVariant(r.sender),
		godbus.FieldReplySerial: godbus.MakeVariant(r.serial),
	}, Body: body}
	if len(body) > 0 {
		msg.Headers[godbus.FieldSignature] = godbus.MakeVariant(godbus.SignatureOf(body...))
	}
	r.conn.Send(msg, nil)
}

// fail answers with the error, once.
func (r *request) fail(err error) {
	if r.answered || r.flags&godbus.FlagNoReplyExpected != 0 {
		return
	}
	r.answered = true
	name, text := errorFor(err)
	sendError(r.conn, r.sender, r.serial, name, text)
}

func sendError(conn *godbus.Conn, to string, serial uint32, name, text string) {
	text = clean(text)
	conn.Send(&godbus.Message{Type: godbus.TypeError, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldDestination: godbus.MakeVariant(to),
		godbus.FieldReplySerial: godbus.MakeVariant(serial),
		godbus.FieldErrorName:   godbus.MakeVariant(name),
		godbus.FieldSignature:   godbus.MakeVariant(godbus.SignatureOf(text)),
	}, Body: []any{text}}, nil)
}
