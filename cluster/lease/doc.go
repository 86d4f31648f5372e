// Package lease is the protocol that makes one node, and only one, run a
// service: the voter's side (Voter), the holder's side (Holder), the leader's
// gathering at a takeover (Closing) and the rules for a change of the voters
// (MayChange). It follows LEASE.md; R1 to R13 in the comments are that page's.
//
// Nothing here has a goroutine, a socket, a file or a clock of its own: time is
// passed in, and a message is a method call that somebody else carries. The
// whole protocol therefore runs in one thread under a seed.
//
// # A renewal
//
//	seq := holder.Begin(clk.Now(), config)             // at the holder, before sending
//	ok, why := voter.Renew(session, config.ID)         // at each voter, whenever it arrives
//	if holder.OK(voterID, session, nonce, seq, clk.Now()) {
//		deadline, _ := holder.Until()                  // arm whatever stops the service at it
//	}
//
// # A takeover
//
//	closing := lease.NewClosing(s.ID, s.TTL, s.Kappa, term) // after CloseSession is committed
//	age, standing := voter.Age(s.ID)                        // at each voter that has applied it
//	closing.Answer(voterID, age, receivedAt)                // at the leader, if standing is StandingClosed
//	left, known := closing.Due(latest, clk.Now())           // known and left <= 0: commit EndSession
package lease
