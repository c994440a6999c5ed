package lab

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	godbus "github.com/godbus/dbus/v5"
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
		ok, err := checkAuthorization(ctx, l.conn, user.Names()[0])
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
	if ok, err := checkAuthorization(ctx, l.conn, user.Names()[0]); err == nil {
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

func checkAuthorization(ctx context.Context, conn *godbus.Conn, name string) (bool, error) {
	subject := struct {
		Kind    string
		Details map[string]godbus.Variant
	}{"system-bus-name", map[string]godbus.Variant{"name": godbus.MakeVariant(name)}}
	var result struct {
		Authorized, Challenge bool
		Details               map[string]string
	}
	err := conn.Object(polkitName, polkitPath).CallWithContext(ctx, polkitName+".Authority.CheckAuthorization", 0,
		subject, testAction, map[string]string{}, uint32(0), "").Store(&result)
	return result.Authorized, err
}
