package link

import (
	"strings"
	"testing"

	"gangway/service/vnet"

	"golang.org/x/sys/unix"
)

func TestObserveSettings6(t *testing.T) {
	if !isolated(t) {
		return
	}
	k := newKernel(t)
	veth(t, "gwta", "gwtb")
	set(t, "net/ipv6/conf/gwta/forwarding", "1")
	set(t, "net/ipv6/conf/gwtb/proxy_ndp", "1")
	want := map[string]string{}
	for _, name := range []string{"all", "default", "lo", "gwta", "gwtb"} {
		for _, key := range []string{"forwarding", "proxy_ndp"} {
			key = "net/ipv6/conf/" + name + "/" + key
			want[key] = sysctl(t, key)
		}
	}
	const asked = "net/ipv6/conf/gwta/force_forwarding"
	want[asked] = sysctl(t, asked)
	got := observe(t, k, asked).Sysctls
	for key, value := range want {
		if got[key] != value {
			t.Errorf("%s is %q, not %q", key, got[key], value)
		}
	}
	for key := range got {
		if strings.HasPrefix(key, "net/ipv4/") && strings.HasSuffix(key, "/proxy_ndp") {
			t.Errorf("%s: there is no such thing", key)
		}
	}
}

// A family that the kernel doesn't have stands for IPv6 on one that was booted without it: nothing of it is
// observed, and that is no error. It may list routes of other families then.
func TestObserveWithoutIPv6(t *testing.T) {
	if !isolated(t) {
		return
	}
	veth(t, "gwta", "gwtb")
	ip(t, "address", "add", "10.7.0.2/24", "dev", "gwta")
	ip(t, "link", "set", "gwta", "up")
	ip(t, "route", "add", "10.20.0.0/16", "via", "10.7.0.1", "proto", "147")
	ip(t, "neighbour", "add", "proxy", "2001:db8::6", "dev", "gwta")
	c, err := dial()
	must(t, err)
	defer c.close()
	var have vnet.Kernel
	var conf []netconf
	steps := steps6(unix.AF_DECnet, &have, &conf)
	must(t, c.list(t.Context(), steps))
	if len(have.Rules6)+len(have.Proxies)+len(conf) > 0 {
		t.Errorf("observed %+v, %+v", have, conf)
	}
	for _, r := range have.Routes6 {
		if !r.Dst.Addr().Is6() {
			t.Errorf("%+v among the IPv6 routes", r)
		}
	}
	// All but the routes is refused, so that this test tries what it is about.
	refusals := 0
	for _, s := range steps {
		s.optional = false
		if err := c.list(t.Context(), []step{s}); err != nil {
			if !isUnsupported(err) {
				t.Errorf("%s: %v", s.noun, err)
			}
			refusals++
		}
	}
	if refusals == 0 {
		t.Error("the kernel refused nothing")
	}
}
