package link

import (
	"encoding/hex"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzParse: whatever a message holds, reading it ends and doesn't panic.
func FuzzParse(f *testing.F) {
	for kind, body := range map[uint16]string{
		unix.RTM_NEWRULE:    "02000000fe000001000000000800060000520000080003006777743000",
		unix.RTM_NEWNETCONF: "020000000800010003000000080002000100000008000300020000",
		unix.RTM_NEWADDR:    "02188000020000000800010a0a0101010800020a01010100",
		unix.RTM_NEWNEIGH:   "0a00000002000000800008001400010020010db8000000000000000000000005",
		unix.RTM_NEWROUTE:   "0210000000030001000000000800010a0a14000014000900100000000200000008000500c0a80101",
	} {
		b, err := hex.DecodeString(body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(kind, b)
	}
	f.Fuzz(func(t *testing.T, kind uint16, body []byte) {
		s := newSeen()
		for _, kind := range []uint16{kind, unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR, unix.RTM_NEWROUTE, unix.RTM_NEWNETCONF} {
			s.relevant(message{kind: kind, body: body})
		}
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			parseRule(body, family)
		}
		for _, main := range []bool{true, false} {
			appendRoute6(body, main, nil)
		}
		parseProxy(body)
		for rest, ok := body, true; ok && len(rest) > 0; {
			var m message
			if m, rest, ok = nextMessage(rest); ok {
				_ = answer(m)
			}
		}
	})
}
