// Package state is the replicated state machine: what every replica holds after
// the same entries of the log, and the rules by which an entry is carried out or
// refused. It decides nothing; it makes sure that what others decide is safe.
//
// The package is pure: no clock, no randomness, no I/O, no logging, nothing but
// the standard library. Wall-clock fields are shown to people and never compared.
// The caller's loop is
//
//	s := state.New()                        // or state.Decode(snapshot)
//	res := s.Apply(index, term, cmd)        // in the order of the log, on every replica
//	if res.Refused != nil { ... }           // the command did nothing; Why says what to do next
//	view := s.Clone()                       // for whoever reads while Apply goes on
//
// A reader's guide: apply.go is the entrance; session.go and grant.go are the
// heart (rules 5 to 13 of the lease protocol); node.go, service.go and order.go
// are membership, specifications and operators' orders; spec.go says what a
// service may look like; snapshot.go and check.go are what is written to disk and
// what is believed when it is read back; codes.go names every refusal.
//
// # Rules
//
// An epoch is over when its Released is applied, or when its session ended with a
// proof that the service's policy accepts. The mark is set in the entry that makes
// it true and is never taken back, however the policy changes later. A grant needs
// every earlier epoch to be over; a hand-over needs exactly one that is not. A
// session goes from open to closing to ended and never back, and a new session of
// the same node proves nothing about the older one.
//
// Every command may come twice, since who proposed it may have lost its leadership
// before it knew the outcome. The second time it either succeeds and changes
// nothing, or is refused.
//
// # Changing this package
//
// Two versions of the program may apply the same log side by side. A rule that is
// loosened, tightened or reworded in what it stores makes their states differ, so
// every such change needs a new version of the log (who may not yet understand it
// must not apply it). A field added to a snapshot needs a new snapshotVersion.
package state
