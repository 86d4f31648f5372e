// Package renew carries lease renewals between the nodes: authenticated UDP
// datagrams, one socket for what a node asks as a holder, answers as a voter and
// gathers as a leader. It decides nothing; package lease does.
//
// UDP, because a lost TCP segment costs 200 ms and more, and a renewal that
// comes late is worth nothing: the next one is better than the same again.
//
// A datagram is a version byte, a kind byte, three numbers (session, nonce, seq),
// a few bytes of the kind's own and the sender's name, followed by 16 bytes of
// HMAC-SHA256 under the cluster's key. Whoever has the key is trusted not to lie;
// whoever has not can lose, delay, repeat and redirect datagrams, and can with
// none of that make a lease longer or a takeover earlier: an OK counts for the one
// request that it names, an age only grows less true to the safe side while it
// is under way, and requests are granted once.
package renew
