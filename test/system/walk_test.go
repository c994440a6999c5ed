package system_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"gangway/test/lab"
)

var (
	walkSeed  = flag.Uint64("walk.seed", 0, "`seed` of the random walk; 0: the time")
	walkSteps = flag.Int("walk.steps", 60, "`number` of steps of the random walk")
)

// walk is what the walker expects of the machine.
type walk struct {
	*world
	random  *rand.Rand
	plugged map[string]bool // by uplink
	enabled map[string]bool
	running bool // the default network
	extra   []string
	names   int
}

// TestRandomWalk does sixty things at random. After each the machine comes to rest, where nothing is left to do and guests reach
// the internet exactly if there is a way.
func TestRandomWalk(t *testing.T) {
	t.Parallel()
	seed := *walkSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("go test ./test/system -run RandomWalk -walk.seed %d -walk.steps %d", seed, *walkSteps)
	w := &walk{world: start(t, lab.Options{}), random: rand.New(rand.NewPCG(seed, 0)), running: true,
		plugged: map[string]bool{"eth0": true, "wlan0": true}, enabled: map[string]bool{"eth0": true, "wlan0": true}}
	g, _ := w.guest("one", w.network)
	w.reachesBy(g.Host, "b")
	for step := range *walkSteps {
		what := w.step()
		t.Logf("%d: %s", step, what)
		w.comesToRest(g)
		if t.Failed() {
			t.Fatalf("step %d: %s", step, what)
		}
	}
	w.noSpoofed()
	for _, name := range w.extra {
		w.call(root+"/network/"+godbus.ObjectPath(name), "Network.Delete")
	}
	if n := len(w.processes("dnsmasq")); n > 1 {
		t.Errorf("%d dnsmasq at the end", n)
	}
}

// step does something that can be done now.
func (w *walk) step() string {
	w.t.Helper()
	site := w.Sites[w.random.IntN(2)]
	ifname := site.Uplink
	switch n := w.random.IntN(10); {
	case n < 3:
		w.plugged[ifname] = !w.plugged[ifname]
		if w.plugged[ifname] {
			w.must(site.Plug())
			return "plug " + ifname
		}
		w.must(site.Unplug())
		return "unplug " + ifname
	case n < 5:
		if !w.plugged[ifname] {
			return "look about"
		}
		w.enabled[ifname] = !w.enabled[ifname]
		if w.enabled[ifname] {
			w.nmcli("device", "connect", ifname)
			return "activate " + ifname
		}
		w.nmcli("device", "disconnect", ifname)
		return "disconnect " + ifname
	case n < 6:
		w.running = !w.running
		if w.running {
			w.call(w.network, "Network.Start")
			return "start"
		}
		w.call(w.network, "Network.Stop")
		return "stop"
	case n < 7 && len(w.extra) < 4:
		w.names++
		name := fmt.Sprintf("n%d", w.names)
		settings := []options{{}, dict("uplink", "wlan0"), dict("ipv4-method", "routed"), dict("vpn", "bypass", "isolate-ports", true)}[w.random.IntN(4)]
		w.create(name, settings)
		w.extra = append(w.extra, name)
		return fmt.Sprintf("create %s %v", name, settings)
	case n < 8 && len(w.extra) > 0:
		i := w.random.IntN(len(w.extra))
		name := w.extra[i]
		w.call(root+"/network/"+godbus.ObjectPath(name), "Network.Delete")
		w.extra = slices.Delete(w.extra, i, i+1)
		return "delete " + name
	default:
		w.kill(unix.SIGKILL)
		w.must(w.Daemon().Activate(w.soon()))
		return "SIGKILL"
	}
}

// nmcli runs nmcli; a device that NetworkManager is just busy with is no error, but tried again.
func (w *walk) nmcli(args ...string) {
	w.t.Helper()
	w.eventually("nmcli "+strings.Join(args, " "), func() error {
		_, err := w.NM.Cli(w.ctx, args...)
		if err != nil && strings.Contains(err.Error(), "not active") {
			return nil
		}
		return err
	})
}

// comesToRest waits until nothing is left to do and what guests reach is what they should.
func (w *walk) comesToRest(g *lab.Guest) {
	w.t.Helper()
	usable := map[string]bool{}
	for _, s := range w.Sites {
		if w.plugged[s.Uplink] {
			// What NetworkManager thinks, after it thought about it: a cable that is plugged in again activates what
			// was taken down by hand before it, or not, as it likes.
			w.eventually(s.Uplink+" is decided", func() error {
				state, err := w.NM.Cli(w.ctx, "-g", "GENERAL.STATE", "device", "show", s.Uplink)
				if err != nil {
					return err
				}
				if !strings.HasPrefix(state, "100") && !strings.HasPrefix(state, "30") {
					return fmt.Errorf("it is %q", strings.TrimSpace(state))
				}
				w.enabled[s.Uplink] = strings.HasPrefix(state, "100")
				return nil
			})
			usable[s.Name] = w.enabled[s.Uplink]
		}
	}
	online := w.running && (usable["a"] || usable["b"])
	w.eventually("nothing is left to do", func() error {
		if plan := w.dryRun(); plan != "" {
			return fmt.Errorf("%s", plan)
		}
		return nil
	})
	want := "active"
	if !w.running {
		want = "inactive"
	}
	w.waitProperty(w.network, "State", want)
	if !online {
		w.cannotReach(g.Host, lab.EchoIPv4)
		return
	}
	seen := w.reaches(g.Host)
	for _, s := range w.Sites {
		if s.Options.IPv4.Contains(seen) && !usable[s.Name] {
			w.t.Errorf("the guest reaches the internet by site %s, which is not usable", s.Name)
		}
	}
}
