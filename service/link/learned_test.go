package link

import (
	"testing"

	"gangway/service/plan"

	"github.com/google/go-cmp/cmp"
)

func TestLearnedMACs(t *testing.T) {
	if !isolated(t) {
		return
	}
	set(t, "net/ipv6/conf/default/disable_ipv6", "1") // or the guests would speak up themselves
	k := newKernel(t)
	ports := map[string]int{}
	for port, bridge := range map[string]string{"gwtpa": "gwt0", "gwtpb": "gwt0", "gwtpc": "gwt1"} {
		index := veth(t, port, "x"+port)
		ports[port] = index
		apply(t, k, bridgeOp(bridge), plan.SetLinkUp{Name: bridge}, plan.AddPort{Bridge: bridge, Interface: port, Index: index})
		eventually(t, port+"'s carrier", func() bool { l, _ := observeLink(t, k, port); return l.Carrier })
	}
	ip(t, "link", "set", "xgwtpa", "address", "02:00:00:00:0a:0a")
	sendFrames(t, "xgwtpa", 3)
	sendFrames(t, "xgwtpc", 9)
	bridgeTool(t, "fdb", "add", "02:00:00:00:0b:0b", "dev", "gwtpb", "master", "static")
	l0, _ := observeLink(t, k, "gwt0")
	l1, _ := observeLink(t, k, "gwt1")
	for _, c := range []struct {
		bridge int
		want   map[int]string
	}{
		{l0.Index, map[int]string{ports["gwtpa"]: "02:00:00:00:00:02"}},
		{l1.Index, map[int]string{ports["gwtpc"]: "02:00:00:00:00:08"}},
	} {
		var got map[int]string
		eventually(t, "the frames to be learned", func() bool {
			var err error
			got, err = k.LearnedMACs(t.Context(), c.bridge)
			must(t, err)
			return cmp.Equal(c.want, got)
		})
	}
	if _, err := k.LearnedMACs(t.Context(), 1<<30); err == nil {
		t.Error("a bridge that doesn't exist has ports")
	}
}
