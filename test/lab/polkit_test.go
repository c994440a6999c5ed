package lab

import (
	"os"
	"path/filepath"
	"testing"
)

const testAction = "org.gangway.LabTest1.act"

const testPolicy = `<?xml version="1.0" encoding="UTF-8"?>
<policyconfig><action id="` + testAction + `"><description>x</description><message>x</message>
<defaults><allow_any>no</allow_any><allow_inactive>no</allow_inactive><allow_active>no</allow_active></defaults></action></policyconfig>`

// TestPolkit asks the real polkitd about an unprivileged peer.
func TestPolkit(t *testing.T) {
	t.Parallel()
	actions := t.TempDir()
	if err := os.WriteFile(filepath.Join(actions, "test.policy"), []byte(testPolicy), 0o644); err != nil {
		t.Fatal(err)
	}
	l := Start(t, Options{NoNetworkManager: true, PolkitActionDir: actions})
	ctx := testContext(t)
	user, err := l.BusAs(65534, 65534)
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	allowed := func() bool {
		t.Helper()
		ok, err := l.authorized(ctx, user.Names()[0], testAction, nil)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if allowed() {
		t.Error("allowed by default")
	}
	if err := l.Polkit.Allow(ctx, "org.gangway.Other", testAction); err != nil {
		t.Fatal(err)
	}
	if !allowed() {
		t.Error("denied although the rule allows it")
	}
	if err := l.Polkit.SetRules(ctx, ""); err != nil {
		t.Fatal(err)
	}
	if allowed() {
		t.Error("allowed although the rule is gone")
	}
	if err := l.Polkit.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if ok, err := l.authorized(ctx, user.Names()[0], testAction, nil); err == nil {
		t.Errorf("a stopped polkitd says %t", ok)
	}
	if err := l.Polkit.Allow(ctx, testAction); err != nil {
		t.Fatal(err)
	}
	if err := l.Polkit.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if !allowed() {
		t.Error("denied although the new polkitd has the rule")
	}
}
