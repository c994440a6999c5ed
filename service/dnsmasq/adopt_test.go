package dnsmasq

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gangway/service/plan"
	"gangway/service/vnet"
)

// runDaemon is a daemon to be killed: it starts the servers that it reads, tells the word
// and waits for its end.
func runDaemon() int {
	var specs []plan.ServerSpec
	if err := json.NewDecoder(os.Stdin).Decode(&specs); err != nil {
		fmt.Println(err)
		return 1
	}
	bus, err := godbus.Connect(labBus)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	dir := os.Getenv("GANGWAY_DNSMASQ_DIR")
	r, err := New(Options{RuntimeDir: dir + "/run", StateDir: dir + "/state", Bus: bus, BusAddress: labBus})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for _, spec := range specs {
		for _, o := range r.Apply(context.Background(), []plan.Op{plan.StartServer{Spec: spec},
			plan.SetUpstreams{Network: spec.Network, Upstreams: daemonUpstreams}}) {
			if o.Err != nil {
				fmt.Println(o.Err)
				return 1
			}
		}
	}
	fmt.Println("serving")
	select {}
}

var daemonUpstreams = []vnet.Upstream{
	{Address: netip.MustParseAddr("192.0.2.53")},
	{Address: netip.MustParseAddr("2001:db8::53"), Interface: "lo", Domains: []string{"corp.example", "10.in-addr.arpa"}},
}

// killedDaemon runs a daemon that starts the servers and is killed.
func (l *lab) killedDaemon(specs ...plan.ServerSpec) {
	l.Helper()
	input, err := json.Marshal(specs)
	if err != nil {
		l.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), labVariable+"=daemon", "GANGWAY_DNSMASQ_DIR="+strings.TrimSuffix(l.options.RuntimeDir, "/run"))
	cmd.Stdin = strings.NewReader(string(input))
	out, err := cmd.StdoutPipe()
	if err != nil {
		l.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		l.Fatal(err)
	}
	word, _ := bufio.NewReader(out).ReadString('\n')
	if word != "serving\n" {
		l.Errorf("daemon said %q", word)
	}
	cmd.Process.Kill()
	cmd.Wait()
}

func TestServersOutliveAKilledDaemonAndAreTakenOver(t *testing.T) {
	l := newLab(t)
	spec := l.network("default", "192.168.231.1/24")
	other := l.network("other", "192.168.232.1/24")
	l.killedDaemon(spec, other)
	l.wantAnswer("", "@192.168.231.1 gateway", "NOERROR", "192.168.231.1")
	servers, _ := l.observe()
	want := []vnet.Server{
		{Network: "default", Digest: spec.Digest(), HostsDigest: spec.HostsDigest(), Upstreams: daemonUpstreams, KnownUpstreams: true},
		{Network: "other", Digest: other.Digest(), HostsDigest: other.HostsDigest(), Upstreams: daemonUpstreams, KnownUpstreams: true},
	}
	if diff := cmp.Diff(want, servers, cmpopts.IgnoreFields(vnet.Server{}, "PID"),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Fatal(diff)
	}
	// It is obeyed as if it were our own.
	l.apply(plan.StartServer{Spec: spec}, plan.SetUpstreams{Network: "default"})
	if now, _ := l.observe(); now[0].PID != servers[0].PID || len(now[0].Upstreams) != 0 {
		t.Errorf("after orders: %+v", now[0])
	}
	pokes := l.watch()
	syscall.Kill(servers[1].PID, syscall.SIGKILL)
	pokes.wait(t, "dnsmasq of other ended")
	l.apply(plan.StopServer{Network: "default"})
	if servers, _ := l.observe(); len(servers) != 0 {
		t.Errorf("still running: %v", servers)
	}
}

func TestServerWithoutRecordIsFound(t *testing.T) {
	l := newLab(t)
	spec := l.network("default", "192.168.231.1/24")
	l.killedDaemon(spec)
	sh(t, "rm -r %s", l.options.RuntimeDir)
	found := l.one()
	if found.Network != "default" || found.Digest != "" || found.KnownUpstreams {
		t.Errorf("found %+v", found)
	}
	l.apply(plan.StartServer{Spec: spec}) // as plan does when the digest is another
	if s := l.one(); s.PID == found.PID || s.Digest != spec.Digest() {
		t.Errorf("after a start: %+v", s)
	}
}

func TestRecycledProcessIDIsNotMistaken(t *testing.T) {
	l := newLab(t)
	spec := l.network("default", "192.168.231.1/24")
	l.killedDaemon(spec)
	f := l.room.files("default")
	rec, err := readRecord(f.record)
	if err != nil {
		t.Fatal(err)
	}
	sleeper := exec.Command("sleep", "1000")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	defer sleeper.Wait()
	defer sleeper.Process.Kill()
	start, err := startTime(sleeper.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if s := l.room.adopt(rec); s == nil {
		t.Error("the right record was refused")
	} else {
		s.release()
	}
	wrong := map[string]record{
		"another process with that id":             {Network: "default", PID: sleeper.Process.Pid, Start: rec.Start},
		"another process with id and time":         {Network: "default", PID: sleeper.Process.Pid, Start: start},
		"the same command with another start time": {Network: "default", PID: rec.PID, Start: rec.Start + 1},
		"another network's server":                 {Network: "other", PID: rec.PID, Start: rec.Start},
		"no process":                               {Network: "default", PID: 1 << 22, Start: rec.Start},
		"the first process":                        {Network: "default", PID: 1, Start: rec.Start},
		"a negative id":                            {Network: "default", PID: -1, Start: rec.Start},
	}
	for name, rec := range wrong {
		if s := l.room.adopt(rec); s != nil {
			t.Errorf("%s was taken for the server", name)
			s.release()
		}
	}
	// The server is gone, and another process has its id by now.
	syscall.Kill(rec.PID, syscall.SIGKILL)
	eventually(t, "server ended", func() bool { _, err := startTime(rec.PID); return err != nil })
	rec.PID = sleeper.Process.Pid
	if err := l.room.writeRecord(rec); err != nil {
		t.Fatal(err)
	}
	if servers, _ := l.observe(); len(servers) != 0 {
		t.Errorf("taken for a server: %v", servers)
	}
	l.apply(plan.StopServer{Network: "default"})
	if _, err := startTime(sleeper.Process.Pid); err != nil {
		t.Errorf("stop killed a stranger: %v", err)
	}
	if _, err := os.Stat(f.dir); !os.IsNotExist(err) {
		t.Errorf("files of a dead server are still there: %v", err)
	}
}

func TestStrangersWithOurCommandLineAreLeftAlone(t *testing.T) {
	l := newLab(t)
	config := l.room.files("default").config
	for name, attr := range map[string]*syscall.SysProcAttr{
		"another user":      {Credential: &syscall.Credential{Uid: 12345, Gid: 12345}},
		"another namespace": {Cloneflags: syscall.CLONE_NEWNET},
	} {
		fake := fakeServer(t, config, attr)
		if servers, _ := l.observe(); len(servers) != 0 {
			t.Errorf("%s: taken for a server: %v", name, servers)
		}
		if l.room.isServer(fake, "default") {
			t.Errorf("%s: passes for a server", name)
		}
		l.room.scanned = false
	}
	// The same without a difference passes: it is the difference that was found.
	if fake := fakeServer(t, config, &syscall.SysProcAttr{}); !l.room.isServer(fake, "default") {
		t.Error("the fake is no good")
	}
}

// fakeServer runs a process with a server's command line and returns its id.
func fakeServer(t *testing.T, config string, attr *syscall.SysProcAttr) int {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"dnsmasq", configOption + config}
	cmd.Env = []string{labVariable + "=fake"}
	cmd.SysProcAttr = attr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if word, _ := bufio.NewReader(out).ReadString('\n'); word != "here\n" {
		t.Fatalf("fake said %q", word)
	}
	return cmd.Process.Pid
}

// pokes records what Watch says.
type pokes struct {
	mu      sync.Mutex
	reasons []string
}

func (p *pokes) wait(t *testing.T, reason string) {
	t.Helper()
	eventually(t, "a poke: "+reason, func() bool { return p.count(reason) > 0 })
}

func (p *pokes) count(reason string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, r := range p.reasons {
		if r == reason {
			n++
		}
	}
	return n
}

// watch starts Watch and returns when it watches.
func (l *lab) watch() *pokes {
	l.Helper()
	p := &pokes{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- l.room.Watch(ctx, func(reason string) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.reasons = append(p.reasons, reason)
		})
	}()
	l.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				l.Error(err)
			}
		case <-time.After(20 * time.Second):
			l.Error("Watch did not end")
		}
	})
	eventually(l, "Watch watches", func() bool {
		l.room.mu.Lock()
		defer l.room.mu.Unlock()
		return len(l.room.watchers) == 1
	})
	return p
}

func TestWatchPokesWhenAServerDiesButNotWhenItIsStopped(t *testing.T) {
	l := newLab(t)
	spec := l.network("default", "192.168.231.1/24")
	pokes := l.watch()
	l.apply(plan.StartServer{Spec: spec})
	l.apply(plan.StopServer{Network: "default"})
	l.apply(plan.StartServer{Spec: spec})
	syscall.Kill(l.one().PID, syscall.SIGSEGV)
	pokes.wait(t, "dnsmasq of default ended")
	if n := pokes.count("dnsmasq of default ended"); n != 1 {
		t.Errorf("%d pokes for one death", n)
	}
	if servers, _ := l.observe(); len(servers) != 0 {
		t.Errorf("observed after its death: %v", servers)
	}
	l.apply(plan.StartServer{Spec: spec})
	l.wantAnswer("", "@192.168.231.1 gateway", "NOERROR", "192.168.231.1")
}

func TestWatchPokesWhenALeaseIsGranted(t *testing.T) {
	l := newLab(t)
	spec := l.network("default", "192.168.231.1/24")
	l.apply(plan.StartServer{Spec: spec})
	l.guest("guest", spec, "02:00:00:00:00:01")
	pokes := l.watch()
	before := pokes.count("leases changed")
	l.dhcp("guest", "")
	eventually(t, "a poke for the lease", func() bool { return pokes.count("leases changed") > before })
}
