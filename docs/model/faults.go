package main

// faults are the rules that are broken, by name; usually one.
type faults map[string]bool

// strict: the invariants besides I1 are checked too. Of a broken rule two
// holders are demanded, not the mere breach of the rule.
func (f faults) strict() bool { return len(f) == 0 }

// fault is a rule of the protocol that -break leaves out, in the words of
// LEASE.md's list, and the scope in which that is found.
type fault struct {
	name  string
	scope string
	words string
}

var allFaults = []fault{
	{"lease-from-receipt", "renewal", "lease counted from receipt"},
	{"not-ready-counts", "restart", "voter not ready counts"},
	{"renewed-never-at-restart", "restart", "renewed = never at restart"},
	{"min-for-max", "renewal", "min for max in D"},
	{"bound-at-sending", "messages", "bound taken at the sending of ConfirmClosed"},
	{"close-not-applied", "renewal", "voter counted that has not applied the close"},
	{"requests-mixed", "messages", "OKs of different requests mixed"},
	{"kappa-left-out", "renewal", "kappa left out"},
	{"check-and-note-apart", "renewal", "check and note not atomic"},
	{"close-not-committed", "renewal", "close acted on before it is committed"},
	{"ok-while-closing", "renewal", "OK while closing"},
	{"one-answer", "renewal", "one answer for a majority"},
	{"h-left-out", "renewal", "H left out"},
	{"no-configuration-check", "members-two", "no configuration check"},
	{"configuration-by-index", "members-terms", "configuration by index"},
	{"applied-configuration", "members-two", "applied instead of latest configuration"},
	{"no-wait-between-changes", "members-two", "no wait between two changes"},
	{"wait-from-leaderch", "members-terms", "wait from LeaderCh"},
	{"no-wait-at-all", "members-terms", "no wait before a change"},
	{"lag-ignored", "members-two", "apply lag ignored at a change"},
	{"change-while-closing", "members-two", "a change while a session is closing"},
	{"new-session-ends-grants", "sessions", "grants ended by a new OpenSession"},
	{"late-snapshot", "renewal", "late snapshot taken"},
	{"until-shared", "sessions", "until shared by two sessions"},
	{"end-of-older-term", "terms", "EndSession of an older term"},
	{"activation-without-barrier", "restarts", "activation without barrier after restart"},
	{"released-before-stopped", "handover", "Released before stopped"},
	{"releasing-activated", "handover", "re-activation of a releasing grant"},
	{"record-erased-early", "handover", "record erased early"},
	{"receiver-not-counted", "handover", "hand-over's new holder not counted"},
	{"message-before-journal", "handover", "message before the journal"},
	{"message-of-another", "handover", "message of another hand-over or session"},
	{"give-up-without-release", "handover", "give-up without release"},
	{"proof-not-accepted", "fencing", "a proof that the policy does not accept"},
	{"chained-handover", "chain", "chained hand-over"},
	{"session-ends-grants", "reboots", "grants ended by a new OpenSession, with journals"},
}
