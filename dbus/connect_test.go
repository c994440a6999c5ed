package dbus

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSocketNames(t *testing.T) {
	for _, test := range []struct {
		list string
		want []string
		err  string
	}{
		{systemBus, []string{"/run/dbus/system_bus_socket", "/var/run/dbus/system_bus_socket"}, ""},
		{"unix:path=/a,guid=0123;", []string{"/a"}, ""},
		{"unix:guid=0123,abstract=/tmp/x%20y", []string{"@/tmp/x y"}, ""},
		{"tcp:host=localhost,port=1;unix:path=/a", []string{"/a"}, ""},
		{"unix:path=%2fa", []string{"/a"}, ""},
		{"", nil, "no address"},
		{"tcp:host=localhost,port=1", nil, "only the unix transport"},
		{"unix:path=/a,abstract=b", nil, "more than one"},
		{"unix:tmpdir=/tmp", nil, "neither"},
		{"unix:path=%zz", nil, "%zz"},
		{"unix:path=a%00b", nil, "bad path"},
		{"unix:path=@hidden", nil, "not absolute"},
		{"garbage", nil, "only the unix transport"},
	} {
		got, err := socketNames(test.list)
		if d := cmp.Diff(test.want, got); d != "" {
			t.Errorf("%q (-want +got):\n%s", test.list, d)
		}
		if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%q: error %v, want %q", test.list, err, test.err)
		}
	}
}
