// Package failpoint names the places of the product at which a test may end or
// freeze the process: every write, send, hook and netlink call has one before
// or after it.
//
//	failpoint.Here("journal.append.written")
//
// In ordinary builds Here is empty: the compiler drops the call and its label.
// Built with the tag failpoints, a program looks at each point for what is
// armed, in the environment or in a file of its data directory:
//
//	FAILOVERD_FAILPOINTS="journal.append.written=crash@3;renew.sent=sleep:200ms"
//	DATA/failpoints/armed                 the same, one a line
//
// The actions are
//
//	crash      SIGKILL to itself: nothing deferred runs, as in a power cut of one process
//	stop       SIGSTOP to itself, until somebody sends SIGCONT
//	sleep:D    waits for the duration D, each time
//	number:N   is no deed: Number gives N for the label instead of the ordinary
//	           number, so that what is rare happens within a test
//
// and @N lets the first N-1 times pass, counted by each process for itself.
// A crash or a stop happens once for each file: it leaves the mark
// DATA/failpoints/fired.LABEL, and as long as that is there the point does
// nothing. So a program that is started again at once does not die of the same
// point. To arm anew, remove the mark. Without the directory DATA/failpoints a
// program does as an ordinary one does.
//
// DATA/failpoints/seen gets a line "program label" when a process comes to a
// point for the first time: a test finds there which points its way leads past.
//
// The package imports nothing of this module. It is for the outside, for what
// can die half way: the pure packages (state, decide, lease) have no points.
package failpoint

// The names below a data directory.
const (
	Dir      = "failpoints" // the directory that the others are in
	Armed    = "armed"
	Fired    = "fired." // and the label
	Seen     = "seen"
	Variable = "FAILOVERD_FAILPOINTS"
)
