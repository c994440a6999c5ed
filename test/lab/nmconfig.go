package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func (l *Lab) writeNetworkManager() error {
	o := l.options
	managed := o.NMManaged
	bridges, uplinks := "", 0
	for i := range o.Sites {
		for _, u := range o.Sites[i].uplinks() {
			uplinks += 2 // a profile each for interface and bridge
			if err := l.writeProfiles(&o.Sites[i], u, uplinks-1); err != nil {
				return err
			}
			managed = append(managed, u.Name)
			if u.Bridge != "" {
				managed = append(managed, u.Bridge)
			}
			if u.HeedCarrier {
				bridges += fmt.Sprintf(nmHeedCarrier, u.Interface())
			}
		}
	}
	dns := "dns=none\nrc-manager=unmanaged"
	if o.NMResolvConf {
		dns = "dns=default\nrc-manager=file"
	}
	conf := fmt.Sprintf(nmConfig, dns, o.NMPolkit, o.NMUnmanaged, bridges, "interface-name:"+strings.Join(managed, ",interface-name:"))
	if err := os.WriteFile(filepath.Join(l.dir, "etc/NetworkManager/NetworkManager.conf"), []byte(conf), 0o644); err != nil {
		return fmt.Errorf("cannot write NetworkManager's configuration: %w", err)
	}
	snippets := filepath.Join(l.dir, "etc/NetworkManager/conf.d")
	for name, text := range o.NMConf {
		if err := os.WriteFile(filepath.Join(snippets, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("cannot write NetworkManager's configuration: %w", err)
		}
	}
	return gather(o.NMConfDir, "*.conf", "[device", snippets)
}

// nmConfig ends with what udev says on a real laptop, 85-nm-unmanaged.rules: NetworkManager leaves veths alone.
const nmConfig = `[main]
plugins=keyfile
dhcp=internal
no-auto-default=*
systemd-resolved=false
%s
auth-polkit=%t
[keyfile]
unmanaged-devices=%s
[logging]
level=INFO
%s[device-lab]
match-device=%s
managed=1
[device-veth]
match-device=driver:veth
managed=0
`

// nmHeedCarrier comes first: of the sections that match a device and have the setting, the first counts.
const nmHeedCarrier = `[device-carrier-%[1]s]
match-device=interface-name:%[1]s
ignore-carrier=no
`

// writeProfiles writes the profile of an uplink, and that of its bridge; number makes their UUIDs.
func (l *Lab) writeProfiles(s *SiteOptions, u UplinkOptions, number int) error {
	profiles := map[string]string{}
	kind, more := "ethernet", u.Profile
	if u.Bridge != "" {
		kind, more = "bridge", "[bridge]\nstp=false\n"+u.Profile
		profiles[u.Name] = fmt.Sprintf(nmPort, u.Name, number+1, u.Bridge)
	}
	profiles[u.Interface()] = fmt.Sprintf(nmProfile, u.Interface(), number, u.Metric, kind, more)
	if s.WWAN {
		profiles[u.Name] = s.wwanProfile(number)
	}
	for name, text := range profiles {
		path := filepath.Join(l.dir, "etc/NetworkManager/system-connections", name+".nmconnection")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return fmt.Errorf("cannot write profile of %q: %w", name, err)
		}
	}
	return nil
}

const nmProfile = `[connection]
id=%[1]s
uuid=67616e67-7761-4792-ad6c-6162000000%02[2]x
type=%[4]s
interface-name=%[1]s
autoconnect-retries=0
[ipv4]
method=auto
route-metric=%[3]d
[ipv6]
method=auto
route-metric=%[3]d
%[5]s
`

const nmPort = `[connection]
id=%[1]s
uuid=67616e67-7761-4792-ad6c-6162000000%02[2]x
type=ethernet
interface-name=%[1]s
autoconnect-retries=0
master=%[3]s
slave-type=bridge
`
