package message

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestProxied(t *testing.T) {
	const (
		far, far2 = "20010db8000000000000000000000053", "20010db8000000000000000000000054"
		near      = "fe800000000000000000000000000053"
	)
	tests := []struct{ name, option, want string }{
		{"prefix", hex.EncodeToString(pio("2001:db8::/64", 0xf0, 3600, 1800)), hex.EncodeToString(pio("2001:db8::/64", 0x40, 3590, 1790))},
		{"not autonomous", hex.EncodeToString(pio("2001:db8::/64", 0x80, 3600, 1800)), hex.EncodeToString(pio("2001:db8::/64", 0, 3590, 1790))},
		{"for ever", hex.EncodeToString(pio("2001:db8::/64", 0xc0, 0xffffffff, 0xffffffff)), hex.EncodeToString(pio("2001:db8::/64", 0x40, 0xffffffff, 0xffffffff))},
		{"one that hosts ignore", hex.EncodeToString(pio("2001:db8::/64", 0xc0, 1, 2)), ""},
		{"link-local prefix", hex.EncodeToString(pio("fe80::/64", 0xc0, 3600, 1800)), ""},
		{"source link-layer", "0101020000000501", ""},
		{"target link-layer", "0201020000000501", ""},
		{"mtu", "0501000000000578", ""},
		{"nonce", "0e01020000000501", ""},
		{"signature", "0c01020000000501", ""},
		{"advertisement interval", "07010000000003e8", ""},
		{"home agent", "0801000000000708", ""},
		{"unknown", "c801020000000501", "c801020000000501"},
		{"captive portal", "250268747470733a2f2f782e79000000", "250268747470733a2f2f782e79000000"},
		{"servers", "190500000000000a" + far + near, "190300000000" + "0000" + far},
		{"two servers", "190500000000ffff" + far + far2, "190500000000fff5" + far + far2},
		{"near server", "190300000000000b" + near, ""},
		{"half a server", "190200000000000b0000000000000000", ""},
		{"route", "1801400000000100", "18014000000000f6"},
		{"pref64", hex.EncodeToString(pref64(75, 3)), hex.EncodeToString(pref64(73, 3))},
		{"search list", "1f02000000000258" + "0161016200000000", "1f0200000000024e" + "0161016200000000"},
		// Priority 1, the name "a.", two servers, parameters "alpn" of four bytes.
		{"encrypted", "9007" + "0001" + "00000258" + "0003016100" + "0020" + near + far + "0004" + "aabbccdd" + "000000",
			"9005" + "0001" + "0000024e" + "0003016100" + "0010" + far + "0004" + "aabbccdd" + "000000"},
		{"encrypted near", "9005" + "0001" + "00000258" + "0003016100" + "0010" + near + "0004" + "aabbccdd" + "000000", ""},
		{"encrypted by name", "9002" + "0001" + "00000258" + "0003016100" + "0000" + "00", "9002" + "0001" + "0000024e" + "0003016100" + "0000" + "00"},
		{"alias", "9002" + "0000" + "00000258" + "0003016100" + "ffff" + "00", "9002" + "0000" + "0000024e" + "0003016100" + "ffff" + "00"},
		{"encrypted with a name that is too long", "9002" + "0001" + "00000258" + "0063016100" + "0000" + "00", ""},
		{"encrypted with too many servers", "9002" + "0001" + "00000258" + "0003016100" + "0040" + "00", ""},
		{"not an option", "19", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			option := unhex(t, test.option)
			kept := slices.Clone(option)
			if got := Proxied(option, 10*time.Second); hex.EncodeToString(got) != test.want {
				t.Errorf("got  %x\nwant %s", got, test.want)
			}
			if !bytes.Equal(option, kept) {
				t.Error("the option was written to")
			}
		})
	}
}

func TestEndedOptions(t *testing.T) {
	for _, test := range []struct {
		option, want []byte
		remaining    time.Duration
		lasts        bool
	}{
		{lasting(25, 600, "0123456789abcdef"), lasting(25, 0, "0123456789abcdef"), 600 * time.Second, true},
		{lasting(24, 600, "12345678"), lasting(24, 0, "12345678"), 600 * time.Second, true},
		{lasting(31, 600, "12345678"), lasting(31, 0, "12345678"), 600 * time.Second, true},
		{lasting(144, 600, "12345678"), lasting(144, 0, "12345678"), 600 * time.Second, true},
		{pref64(75, 3), pref64(0, 3), 600 * time.Second, true},
		{pio("2001:db8::/64", 0xc0, 3600, 1800), nil, time.Hour, true},
		{lasting(200, 600, ""), nil, 0, false},
		{nil, nil, 0, false},
	} {
		if got := Ended(test.option); !bytes.Equal(got, test.want) {
			t.Errorf("%x ends as %x, want %x", test.option, got, test.want)
		}
		if left, lasts := Remaining(test.option); left != test.remaining || lasts != test.lasts {
			t.Errorf("%x lasts %v, %v", test.option, left, lasts)
		}
	}
}

func TestPrefixesGrowOld(t *testing.T) {
	p := Prefix{Prefix: netip.MustParsePrefix("2001:db8::/64"), Valid: Infinity, Preferred: time.Minute}
	if got := p.After(1500 * time.Millisecond); got.Valid != Infinity || got.Preferred != 58*time.Second || p.Preferred != time.Minute {
		t.Errorf("%v", got)
	}
	if got := p.After(time.Hour); got.Preferred != 0 {
		t.Errorf("%v", got)
	}
}
