package dbus

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync/atomic"

	godbus "github.com/godbus/dbus/v5"

	"gangway/service/vnet"
)

const (
	// maxCall is the longest method call in bytes that is taken in: the longest that makes
	// sense, 1024 reservations, is a fifth of it.
	maxCall = 1 << 20
	// maxMessage is the longest message (D-Bus specification, "Message Format").
	maxMessage = 1 << 27
	fixedSize  = 16 // the fixed part of the header, with the length of the fields

	typeCall, typeReply, typeError = 1, 2, 3
	flagNoReply                    = 1
)

// frames stands between the socket and godbus and lets only whole, decodable messages through.
// godbus gives the connection up upon a message that it can't decode, and there are messages that
// are valid for dbus-daemon but not for godbus (nesting is counted differently): without this,
// any user could end the daemon with one message.
type frames struct {
	net.Conn
	in   *bufio.Reader
	rest []byte // of the message that is being read
	// framed is false during authentication, which is lines.
	framed atomic.Bool
	// reject answers a method call that isn't let through.
	reject func(sender string, serial uint32, name, text string)
}

func newFrames(conn net.Conn) *frames {
	return &frames{Conn: conn, in: bufio.NewReaderSize(conn, 1<<16)}
}

// Write writes whole messages, as godbus does.
func (f *frames) Write(b []byte) (int, error) {
	if bytes.Equal(b, []byte("BEGIN\r\n")) {
		f.framed.Store(true) // the bus says nothing between its OK and the first message
	}
	return f.Conn.Write(b)
}

// Read reads from one message at a time. Only godbus's reader calls it.
func (f *frames) Read(b []byte) (int, error) {
	if !f.framed.Load() {
		return f.in.Read(b)
	}
	for len(f.rest) == 0 {
		frame, err := f.next()
		if err != nil {
			return 0, err
		}
		f.rest = frame
	}
	n := copy(b, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// next returns a message, nil when it wasn't let through.
func (f *frames) next() ([]byte, error) {
	fixed := make([]byte, fixedSize)
	if _, err := io.ReadFull(f.in, fixed); err != nil {
		return nil, err
	}
	order := byteOrder(fixed[0])
	if order == nil {
		return nil, fmt.Errorf("cannot read from bus: byte order mark %#x", fixed[0])
	}
	fields := (uint64(order.Uint32(fixed[12:])) + 7) &^ 7
	total := fixedSize + fields + uint64(order.Uint32(fixed[4:]))
	if total > maxMessage {
		return nil, fmt.Errorf("cannot read from bus: message of %d bytes", total)
	}
	// What we did not ask for may be anybody's; replies come from whom we called, and NetworkManager's may be long.
	unasked := fixed[1] != typeReply && fixed[1] != typeError
	if unasked && total > maxCall {
		header := make([]byte, min(fixedSize+fields, maxCall))
		copy(header, fixed)
		if _, err := io.ReadFull(f.in, header[fixedSize:]); err != nil {
			return nil, err
		}
		if _, err := io.CopyN(io.Discard, f.in, int64(total)-int64(len(header))); err != nil {
			return nil, err
		}
		f.refuse(header, order, errorNames[vnet.LimitExceeded], fmt.Sprintf("the message has %d bytes, %d at most", total, maxCall))
		return nil, nil
	}
	frame := make([]byte, total)
	copy(frame, fixed)
	if _, err := io.ReadFull(f.in, frame[fixedSize:]); err != nil {
		return nil, err
	}
	if unasked {
		if err := decodable(frame); err != nil {
			f.refuse(frame, order, errInvalidArgs, "the message can't be decoded: "+err.Error())
			return nil, nil
		}
	}
	return frame, nil
}

func decodable(frame []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	_, err = godbus.DecodeMessage(bytes.NewReader(frame))
	return err
}

func (f *frames) refuse(header []byte, order binary.ByteOrder, name, text string) {
	if header[1] != typeCall || header[2]&flagNoReply != 0 || f.reject == nil {
		return
	}
	if sender := senderOf(header, order); sender != "" {
		f.reject(sender, order.Uint32(header[8:]), name, text)
	}
}

func byteOrder(mark byte) binary.ByteOrder {
	switch mark {
	case 'l':
		return binary.LittleEndian
	case 'B':
		return binary.BigEndian
	}
	return nil
}

// senderOf finds the SENDER field in a message's header, "" when there is none. The fields
// are an a(yv) of strings, object paths, signatures and numbers.
func senderOf(header []byte, order binary.ByteOrder) string {
	end := min(fixedSize+int(order.Uint32(header[12:])), len(header))
	for at := fixedSize; ; {
		at = (at + 7) &^ 7
		if at+4 > end || header[at+1] != 1 {
			return ""
		}
		code, kind := header[at], header[at+2]
		at += 4
		switch kind {
		case 's', 'o':
			at = (at + 3) &^ 3
			if at+4 > end {
				return ""
			}
			length := int(order.Uint32(header[at:]))
			at += 4
			if length < 0 || length > end-at-1 {
				return ""
			}
			if code == byte(godbus.FieldSender) {
				return string(header[at : at+length])
			}
			at += length + 1
		case 'g':
			if at >= end {
				return ""
			}
			at += int(header[at]) + 2
		case 'u':
			at = (at+3)&^3 + 4
		default:
			return ""
		}
	}
}
