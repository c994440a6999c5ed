package uplink

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gangway/test/lab"
)

func TestHold(t *testing.T) {
	if os.Getenv("HOLD") == "" {
		return
	}
	l := lab.Start(t, lab.Options{NoPolkit: true, NoNetworkManager: true})
	os.WriteFile(filepath.Join(l.Dir(), "etc/NetworkManager/conf.d/90-g.conf"), []byte("[device-gangway]\nmatch-device=interface-name:gway*\nmanaged=0\n[device-gangway-shared]\nmatch-device=interface-name:gwb-*\nignore-carrier=no\n"), 0o644)
	l.NM.Start(t.Context())
	fmt.Println(l.Prefix(), l.Dir())
	os.WriteFile("/tmp/hold.info", []byte(l.Prefix()+" "+l.Dir()), 0o644)
	for i := 0; i < 3600; i++ {
		time.Sleep(time.Second)
		if _, err := os.Stat("/tmp/hold.stop"); err == nil {
			os.Remove("/tmp/hold.stop")
			return
		}
	}
}
