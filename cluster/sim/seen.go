package sim

import "slices"

// traits are what happens too often to be counted by name.
type traits struct {
	lost, twice, slowed, oneWay, overtaken int
}

// named are the traits, by name.
func (t traits) named() map[string]int {
	return map[string]int{
		"message lost": t.lost, "message twice": t.twice, "message late": t.slowed,
		"message lost one way": t.oneWay, "message overtaken": t.overtaken,
	}
}

// Everything names what must happen now and then in many worlds: where one of
// these never does, the simulation no longer looks where it should.
func Everything() []string {
	list := []string{
		"3 nodes", "4 nodes", "5 nodes", "6 nodes", "7 nodes", "witness", "clock rate error",
		"slewed", "suspended", "frozen", "off", "hung disk", "failed sync",
		"snapshot kept", "snapshot loaded", "snapshot installed", "late snapshot refused",
		"voter added", "voter removed", "hand-over", "hand-over told", "adopted", "goodbye",
		"paused", "resumed", "standby", "forced", "session expired", "session fenced", "session vouched", "epoch released",
		"deaf leader", "fence begun", "machine fenced", "lied to",
		"end whole", "end bury", "end maim",
	}
	for _, d := range devices {
		list = append(list, "device "+string(d))
	}
	for _, s := range steps {
		list = append(list, "died: "+s)
	}
	for name := range actions {
		if name != "quiet" {
			list = append(list, name)
		}
	}
	for name := range (traits{}).named() {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}
