package firewall

import (
	"os/exec"
	"strings"
	"testing"

	"gangway/service/plan"
)

// A guest without an address gets one from dnsmasq, though the host drops what comes in, by a
// client that reads raw packets.
func TestLease(t *testing.T) {
	forBackends(t, func(t *testing.T, host *namespace, f *Firewall) {
		guest := newNamespace(t, "guest")
		host.sh("ip link add gway0 type bridge forward_delay 0; ip link set gway0 up group %d; ip addr add 192.168.231.1/24 dev gway0",
			plan.GroupBridge|plan.GroupServices)
		wire(host, "port", guest, "eth0")
		host.run("ip", "link", "set", "port", "master", "gway0")
		apply(t, f, plan.InstallChains{}, add(plan.SetLocal, homeNet+",gway0"))
		host.run(f.ipv4.name, "-P", "INPUT", "DROP")

		// The test is in host: so is what it starts.
		server := exec.Command("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--leasefile-ro", "--port=0",
			"--user=root", "--interface=gway0", "--bind-dynamic", "--dhcp-range=192.168.231.50,192.168.231.60", "--log-facility=-", "--no-ping")
		var log strings.Builder
		server.Stdout, server.Stderr = &log, &log
		must(t, server.Start())
		t.Cleanup(func() { server.Process.Kill(); server.Wait() })
		// udhcpc asks again until there is a server.
		out, err := guest.try("busybox", "udhcpc", "-f", "-n", "-q", "-i", "eth0", "-s", "/bin/true", "-t", "30", "-T", "1")
		if err != nil || !strings.Contains(out, "lease of 192.168.231.") {
			t.Fatalf("no lease: %v\n%s\n%s", err, out, log.String())
		}
	})
}
