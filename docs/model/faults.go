package main

// faults are the rules that are broken, by name; usually one.
type faults map[string]bool

// strict: the invariants besides I1 are checked too. Of a broken rule two
// holders are demanded, not the mere breach of the rule.
func (f faults) strict() bool { return len(f) == 0 }

// fault is a rule of the protocol that -break leaves out, in the words of
// LEASE.md's list, and the scope in which that is found.
type fault struct {
	name   string
	scope  string
	words  string
	breach string // the invariant that breaks, if not I1
	slow   bool   // not in a short test
	// elsewhere names the mutant of the product's own tests that shows it, where
	// no scope of this model does.
	elsewhere string
}

var allFaults = []fault{
	{name: "lease-from-receipt", scope: "renewal", words: "lease counted from receipt"},
	{name: "not-ready-counts", scope: "restart", words: "voter not ready counts"},
	{name: "renewed-never-at-restart", scope: "restart", words: "renewed = never at restart"},
	{name: "min-for-max", scope: "renewal", words: "min for max in D"},
	{name: "bound-at-sending", scope: "messages", words: "bound taken at the sending of ConfirmClosed", slow: true},
	{name: "close-not-applied", scope: "renewal", words: "voter counted that has not applied the close"},
	{name: "requests-mixed", scope: "messages", words: "OKs of different requests mixed", slow: true},
	{name: "kappa-left-out", scope: "renewal", words: "kappa left out"},
	{name: "check-and-note-apart", scope: "renewal", words: "check and note not atomic"},
	{name: "close-not-committed", scope: "renewal", words: "close acted on before it is committed"},
	{name: "ok-while-closing", scope: "renewal", words: "OK while closing"},
	{name: "one-answer", scope: "renewal", words: "one answer for a majority"},
	{name: "h-left-out", scope: "renewal", words: "H left out"},
	{name: "no-configuration-check", scope: "members", words: "no configuration check"},
	{name: "configuration-by-index", scope: "members-terms", words: "configuration by index", elsewhere: "lease-config-by-index"},
	{name: "applied-configuration", scope: "members", words: "applied instead of latest configuration"},
	{name: "no-wait-between-changes", scope: "members", words: "no wait between two changes"},
	{name: "wait-from-leaderch", scope: "members-terms", words: "wait from LeaderCh"},
	{name: "no-wait-at-all", scope: "members-terms", words: "no wait before a change"},
	{name: "change-of-older-term", scope: "gap-terms", words: "a change of voters checked in an older term", slow: true},
	{name: "lag-ignored", scope: "members", words: "apply lag ignored at a change"},
	{name: "change-while-closing", scope: "members", words: "a change while a session is closing", elsewhere: "lease-member-closing"},
	{name: "new-session-ends-grants", scope: "sessions", words: "grants ended by a new OpenSession"},
	{name: "late-snapshot", scope: "renewal", words: "late snapshot taken"},
	{name: "until-shared", scope: "sessions", words: "until shared by two sessions"},
	{name: "end-of-older-term", scope: "terms", words: "EndSession of an older term", breach: "R11"},
	{name: "activation-without-barrier", scope: "restarts", words: "activation without barrier after restart"},
	{name: "released-before-stopped", scope: "handover", words: "Released before stopped"},
	{name: "releasing-activated", scope: "handover", words: "re-activation of a releasing grant"},
	{name: "record-erased-early", scope: "handover", words: "record erased early"},
	{name: "receiver-not-counted", scope: "handover", words: "hand-over's new holder not counted"},
	{name: "message-before-journal", scope: "handover", words: "message before the journal"},
	{name: "message-of-another", scope: "handover", words: "message of another hand-over or session"},
	{name: "give-up-without-release", scope: "handover", words: "give-up without release"},
	{name: "proof-not-accepted", scope: "fencing", words: "a proof that the policy does not accept"},
	{name: "chained-handover", scope: "chain", words: "chained hand-over"},
	{name: "session-ends-grants", scope: "reboots", words: "grants ended by a new OpenSession, with journals"},
}
