package message

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// extended returns a frame with the extension headers between IPv6 and ICMPv6. Each begins with its
// type, which is put where it belongs.
func extended(t testing.TB, headers ...string) []byte {
	frame := captured(t, "linux-rs")
	message := slices.Clone(frame[54:])
	frame = frame[:54]
	next := 20 // where the type of what follows is
	for _, h := range headers {
		at := len(frame)
		frame = append(frame, unhex(t, h)...)
		frame[next], frame[at] = frame[at], 58
		next = at
	}
	frame = append(frame, message...)
	length := len(frame) - 54
	frame[18], frame[19] = byte(length>>8), byte(length)
	return frame
}

func TestExtensionHeaders(t *testing.T) {
	const (
		hopByHop    = "00 00 05020000 0100" // router alert (RFC 2711), PadN
		destination = "3c 00 0104 00000000"
		pads        = "3c 00 000000000000"
	)
	tests := []struct {
		name    string
		headers []string
		want    error
	}{
		{"none", nil, nil},
		{"router alert", []string{hopByHop}, nil},
		{"all that may be", []string{hopByHop, destination, "2b 00 00 00 00000000", destination}, nil},
		{"long", []string{"3c 01 010c" + strings.Repeat("00", 12)}, nil},
		{"Pad1 alone", []string{pads}, nil},
		{"unknown, to pass over", []string{"3c 00 1e04 00000000"}, nil},
		{"as many as are looked through", slices.Repeat([]string{pads}, maxExtensions), nil},
		{"more", slices.Repeat([]string{pads}, maxExtensions+1), ErrNotICMP},
		{"fragment", []string{"2c 00 0000 00000001"}, ErrFragment},
		{"first fragment of more", []string{"2c 00 0001 00000001"}, ErrFragment},
		{"fragment behind options", []string{hopByHop, destination, "2c 00 0000 00000001"}, ErrFragment},
		{"hop-by-hop not first", []string{destination, hopByHop}, ErrInvalid},
		{"hop-by-hop twice", []string{hopByHop, hopByHop}, ErrInvalid},
		{"routing with segments left", []string{"2b 00 00 01 00000000"}, ErrInvalid},
		{"unknown, to discard", []string{"3c 00 4004 00000000"}, ErrInvalid},
		{"unknown, to discard and report", []string{"3c 00 8004 00000000"}, ErrInvalid},
		{"unknown, to report but for groups", []string{"00 00 c204 00010000"}, ErrInvalid}, // jumbogram
		{"option longer than the header", []string{"3c 00 1e05 00000000"}, ErrInvalid},
		{"option without a length", []string{"3c 00 0103 000000 1e"}, ErrInvalid},
		{"header longer than the packet", []string{"3c 03 0104 00000000"}, ErrTruncated},
		{"authentication", []string{"33 01 0000 00000001 00000001 00000000"}, ErrNotICMP},
		{"no next", []string{"3b 00 0000 00000000"}, ErrNotICMP},
		{"UDP", []string{"11 00 0000 00000000"}, ErrNotICMP},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f, err := ParseFrame(extended(t, test.headers...))
			if !errors.Is(err, test.want) {
				t.Fatalf("%v, want %v", err, test.want)
			}
			if err == nil {
				if _, err := ParseRouterSolicitation(f); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
