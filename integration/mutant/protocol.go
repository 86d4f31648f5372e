package main

// fault is one of the faults that the protocol was written against. Each gave
// two holders in a search over a model of it.
type fault struct {
	name    string
	mutants []string // at least one
}

// protocol is the list. A fault of the protocol that nobody puts into the code
// is one that nobody would notice there.
var protocol = []fault{
	{"lease counted from receipt", []string{"lease-receipt"}},
	{"a voter that is not ready counts", []string{"lease-not-ready", "lease-not-ready-age", "node-ready-by-voter"}},
	{"renewed never, after a restart", []string{"lease-restart-never"}},
	{"min for max in D", []string{"lease-min-for-max"}},
	{"bound taken at the sending of ConfirmClosed", []string{"lease-bound-at-sending"}},
	{"a voter counts that has not applied the close", []string{"lease-unapplied-close", "lease-confirm-open", "node-answers-before-the-close"}},
	{"OKs of different requests mixed", []string{"lease-mixed-requests"}},
	{"κ left out", []string{"lease-no-kappa"}},
	{"check and note not atomic", []string{"lease-not-atomic"}},
	{"close acted on before it is committed", []string{"node-close-not-committed", "state-close-not-needed"}},
	{"OK while closing", []string{"lease-ok-while-closing"}},
	{"one answer for a majority", []string{"lease-one-answer", "lease-one-ok"}},
	{"H left out", []string{"lease-no-ttl"}},
	{"activation without a barrier after a restart", []string{"sim-activation-not-ready"}},
	{"Released before stopped", []string{"node-unproven-given-up", "sim-released-before-stopped"}},
	{"re-activation of a releasing grant", []string{"lease-journal-reactivated"}},
	{"no configuration check", []string{"lease-no-config-check"}},
	{"configuration by index", []string{"lease-config-by-index"}},
	{"applied instead of latest configuration", []string{"voters-seen-before", "consensus-stale-configuration"}},
	{"no wait between two changes", []string{"lease-member-no-wait", "node-unknown-change-forgotten"}},
	{"wait from LeaderCh", []string{"lease-member-leaderch"}},
	{"apply lag ignored at a change", []string{"lease-member-lag"}},
	{"grants ended by a new OpenSession", []string{"state-new-session-ends-grants", "state-new-session-is-proof"}},
	{"late snapshot taken", []string{"lease-late-snapshot", "consensus-late-snapshot"}},
	{"until shared by two sessions", []string{"lease-shared-until", "lease-shared-holder", "node-old-deadline"}},
	{"a hand-over's new holder not counted", []string{"state-receiver-not-counted"}},
	{"message before the journal", []string{"node-message-before-journal"}},
	{"message of another hand-over or session", []string{"decide-other-handover", "decide-any-session"}},
	{"give-up without release", []string{"decide-not-given-up"}},
	{"a proof that the policy does not accept", []string{"state-proof-not-accepted"}},
	{"chained hand-over", []string{"state-chained-handover"}},
	{"record erased early", []string{"sim-record-erased-early"}},
	{"EndSession of an older term", []string{"state-end-of-older-term"}},
}
