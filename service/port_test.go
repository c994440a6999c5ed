package service_test

import (
	"testing"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// A port that was down before it was attached is down after it was let go, by whichever way: else the
// guest behind it would share a link with the host that nobody watches over.
func TestPortGoesDownAgain(t *testing.T) {
	ways := map[string]func(b *bench){
		"detach":   func(b *bench) { b.must(b.svc.Detach(ctx, "lab", "veth0")) },
		"stop":     func(b *bench) { b.must(b.svc.StopNetwork(ctx, "lab")) },
		"delete":   func(b *bench) { b.must(b.svc.DeleteNetwork(ctx, "lab")) },
		"shutdown": func(b *bench) { b.must(b.svc.Shutdown(ctx)) },
		"attached twice, after a restart": func(b *bench) {
			b.restart()
			b.must(b.svc.Attach(ctx, "lab", "veth0", nil, 0))
			b.must(b.svc.Detach(ctx, "lab", "veth0"))
		},
	}
	for name, letGo := range ways {
		for _, up := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				run(t, func(b *bench) {
					b.create("lab", nil)
					b.m.AddVeth("veth0")
					b.m.EditLink("veth0", func(l *vnet.Link) { l.Up = up })
					b.must(b.svc.Attach(ctx, "lab", "veth0", nil, 0))
					letGo(b)
					have := b.m.Observed(plan.Want{})
					if l, _ := have.Kernel.LinkByName("veth0"); l.Master != 0 || l.Up != up {
						t.Errorf("it was up: %v, now it is %+v", up, l)
					}
				})
			})
		}
	}
}
