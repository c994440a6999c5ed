package uplink

import (
	"fmt"
	"testing"

	"gangway/service/vnet"
)

// BenchmarkRead takes the time of one reading, with a real NetworkManager that has two
// uplinks and as many profiles more. It needs root.
func BenchmarkRead(b *testing.B) {
	for _, profiles := range []int{0, 100} {
		b.Run(fmt.Sprintf("profiles=%d", profiles), func(b *testing.B) {
			l := newLaptop(b)
			for i := range profiles {
				l.write(fmt.Sprintf("/etc/NetworkManager/system-connections/cafe%d.nmconnection", i),
					fmt.Sprintf("[connection]\nid=Cafe %d\ntype=ethernet\nautoconnect=false\ninterface-name=none%d\n[ipv4]\nmethod=auto\n", i, i))
			}
			l.startNM()
			r := New(Options{Bus: l.connect(), ResolvConf: "/run/resolv.conf"})
			l.readUntil(r, "both uplinks are usable", func(u *vnet.Uplinks) bool {
				eth, _ := u.Find("eth0")
				wlan, _ := u.Find("wlan0")
				return u.Source == SourceNetworkManager && eth.Usable && wlan.Usable
			})
			k := l.dump()
			b.Run("read", func(b *testing.B) {
				for b.Loop() {
					if _, err := r.Read(b.Context(), k); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run("convert", func(b *testing.B) {
				pic, _, _ := r.readNM(b.Context(), k)
				for b.Loop() {
					convert(&pic, k, holds{})
				}
			})
			b.Run("profiles", func(b *testing.B) {
				for b.Loop() {
					list, err := readProfiles(b.Context(), r.bus)
					if err != nil || len(list) < profiles {
						b.Fatal(len(list), err)
					}
				}
			})
		})
	}
}
