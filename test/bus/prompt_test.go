package bus

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"gangway/dbus"
	"gangway/policy"
	"gangway/service/vnet"
)

// agent is a polkit authentication agent that is shown a prompt and answers nothing by itself.
type agent struct {
	begun, cancelled chan string   // cookies
	finish           chan struct{} // lets go of a prompt
}

func (a *agent) BeginAuthentication(action, message, icon string, details map[string]string, cookie string, identities []struct {
	Kind    string
	Details map[string]godbus.Variant
}) *godbus.Error {
	a.begun <- cookie + "\n" + message
	<-a.finish
	return nil
}

func (a *agent) CancelAuthentication(cookie string) *godbus.Error {
	a.cancelled <- cookie
	a.finish <- struct{}{}
	return nil
}

// registerAgent registers an agent for all that this process asks for, whichever user it asks as.
func (p *polkit) registerAgent() *agent {
	p.t.Helper()
	a := &agent{make(chan string, 1), make(chan string, 1), make(chan struct{}, 1)}
	must(p.t, p.root.Export(a, "/agent", "org.freedesktop.PolicyKit1.AuthenticationAgent"))
	stat, err := os.ReadFile("/proc/self/stat")
	must(p.t, err)
	// The fields after the name, which may have blanks; the 22nd is the start time (proc(5)).
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	start, err := strconv.ParseUint(fields[22-3], 10, 64)
	must(p.t, err)
	must(p.t, p.root.Object("org.freedesktop.PolicyKit1", "/org/freedesktop/PolicyKit1/Authority").Call(
		"org.freedesktop.PolicyKit1.Authority.RegisterAuthenticationAgent", 0, subject{"unix-process",
			variants{"pid": godbus.MakeVariant(uint32(os.Getpid())), "start-time": godbus.MakeVariant(start)}}, "C", "/agent").Err)
	return a
}

// subject is polkit's struct of subjects and identities.
type subject struct {
	Kind    string
	Details variants
}

// While a prompt is open, nothing else waits; a yes carries the command out; arguments are checked again.
func TestPrompt(t *testing.T) {
	f := startServer(t, policy.Options{})
	p := f.startPolkit("")
	caller, agent := f.client(nobody), p.registerAgent()
	answer := func(cookie string) {
		t.Helper()
		must(t, p.root.Object("org.freedesktop.PolicyKit1", "/org/freedesktop/PolicyKit1/Authority").Call(
			"org.freedesktop.PolicyKit1.Authority.AuthenticationAgentResponse2", 0, uint32(0), cookie,
			subject{"unix-user", variants{"uid": godbus.MakeVariant(uint32(0))}}).Err)
	}
	begin := func() (*godbus.Call, string) {
		t.Helper()
		c := send(caller, godbus.FlagAllowInteractiveAuthorization, networkPath, dbus.NetworkInterface+".Update", variants{"mtu": godbus.MakeVariant(uint32(1400))})
		select {
		case begun := <-agent.begun:
			cookie, message, _ := strings.Cut(begun, "\n")
			t.Logf("prompt: %s", message)
			if !strings.Contains(message, "default") && !strings.Contains(message, "$(network)") {
				t.Errorf("the prompt says %q", message)
			}
			return c, cookie
		case <-c.Done:
			t.Fatalf("no prompt: %v", c.Err)
		case <-time.After(patience):
			t.Fatal("no prompt")
		}
		return nil, ""
	}

	c, cookie := begin()
	if _, name, text := call(f.client(0), networkPath, dbus.NetworkInterface+".Stop"); name != "" {
		t.Errorf("a command beside the prompt: %s %s", name, text)
	}
	// Somebody claims that the caller has left. The bus says who says so.
	forged := godbus.Message{Type: godbus.TypeSignal, Body: []any{caller.Names()[0], caller.Names()[0], ""}, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldDestination: godbus.MakeVariant(f.conn.Names()[0]),
		godbus.FieldPath:        godbus.MakeVariant(godbus.ObjectPath("/org/freedesktop/DBus")),
		godbus.FieldInterface:   godbus.MakeVariant("org.freedesktop.DBus"),
		godbus.FieldMember:      godbus.MakeVariant("NameOwnerChanged"),
		godbus.FieldSignature:   godbus.MakeVariant(godbus.SignatureOf("", "", "")),
	}}
	forger := f.client(1)
	forger.Send(&forged, nil)
	if _, name, text := call(forger, dbus.RootPath, "org.freedesktop.DBus.Peer.Ping"); name != "" {
		t.Fatalf("the forger has no way to us: %s %s", name, text)
	}
	answer(cookie)
	agent.finish <- struct{}{}
	if <-c.Done; c.Err != nil {
		t.Fatalf("after a yes: %v", c.Err)
	}
	if n, _ := f.backend.Snapshot().Network("default"); n.Settings.MTU != 1400 {
		t.Errorf("after a yes: MTU %d", n.Settings.MTU)
	}

	p.setRules("// forget what was authorised\n")
	c, cookie = begin()
	f.backend.change(func(s *vnet.Snapshot) { s.Networks = nil })
	answer(cookie)
	agent.finish <- struct{}{}
	if <-c.Done; c.Err == nil || c.Err.(godbus.Error).Name != "org.freedesktop.DBus.Error.UnknownObject" {
		t.Errorf("a network that went during the prompt: %v", c.Err)
	}
}

// A prompt that nobody answers is taken off the screen.
func TestPromptThatNobodyAnswers(t *testing.T) {
	f := startServer(t, policy.Options{PromptTimeout: 300 * time.Millisecond})
	p := f.startPolkit("")
	agent := p.registerAgent()
	if _, name, text := callFlags(f.client(nobody), godbus.FlagAllowInteractiveAuthorization, networkPath, dbus.NetworkInterface+".Delete"); name != denied {
		t.Errorf("error %q (%s)", name, text)
	}
	select {
	case <-agent.cancelled:
	case <-time.After(patience):
		t.Fatal("the prompt stays")
	}
}

// A caller that leaves is noticed by us, too, whatever polkitd is at.
func TestCallerThatLeavesAPolkitdThatHangs(t *testing.T) {
	f := startServer(t, policy.Options{Timeout: patience})
	p := f.startPolkit("")
	caller := f.client(nobody)
	if _, name, _ := call(caller, networkPath, dbus.NetworkInterface+".Delete"); name != needsPrompt {
		t.Fatalf("before: %s", name)
	}
	must(t, p.process.Process.Signal(unix.SIGSTOP))
	send(caller, 0, networkPath, dbus.NetworkInterface+".Delete")
	sent := time.Now()
	busy := func() bool { return time.Since(f.server.IdleSince()) < 10*time.Millisecond }
	// Long after the call before this one, busy means that polkit has been asked.
	eventually(t, "the call is in progress", func() bool { return time.Since(sent) > 200*time.Millisecond && busy() })
	caller.Close()
	start := time.Now()
	eventually(t, "the call has ended", func() bool { return !busy() })
	if took := time.Since(start); took > patience/2 {
		t.Errorf("it took %s", took)
	}
}

// A caller that leaves takes its prompt along.
func TestPromptOfACallerThatLeaves(t *testing.T) {
	f := startServer(t, policy.Options{})
	p := f.startPolkit("")
	caller, agent := f.client(nobody), p.registerAgent()
	send(caller, godbus.FlagAllowInteractiveAuthorization, networkPath, dbus.NetworkInterface+".Delete")
	wait := func(what string, c chan string) {
		t.Helper()
		select {
		case <-c:
		case <-time.After(patience):
			t.Fatalf("not in time: %s", what)
		}
	}
	wait("the prompt", agent.begun)
	caller.Close()
	wait("the prompt is withdrawn", agent.cancelled)
	eventually(t, "no call is in progress", func() bool { return time.Since(f.server.IdleSince()) > 10*time.Millisecond })
	if done := f.backend.carriedOut(); len(done) > 0 {
		t.Errorf("carried out: %q", done)
	}
}
