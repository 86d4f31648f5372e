// Package guard keeps a node's services alive without its daemon, and ends
// them when its lease ends.
//
// The guard is a small program of its own (cmd/failoverguard), one per daemon.
// It starts the processes of services, reaps them, owns their output, restarts
// them after a crash, and kills them all at the deadline that the daemon last
// told it. So a daemon may crash, be frozen or be upgraded, and the services go
// on for exactly as long as the lease does.
//
// # How something is known to be gone
//
// Every service has its own init: the guard's program again, as PID 1 of a PID
// namespace of its own. When an init dies the kernel kills everything in its
// namespace, and the init can be reaped only after the last of them is gone.
// Neither setsid nor a double fork leads out. Where cgroup v2 can be written
// the init is born into a cgroup too; then stopped is proven twice: init reaped,
// cgroup empty.
//
// # Who watches the guard
//
// The kernel. The guard's inits ask to be killed when the guard dies
// (PR_SET_PDEATHSIG), and while anything is supervised the guard keeps a kernel
// timer armed on itself (timer_create, CLOCK_BOOTTIME, SIGKILL) a few
// milliseconds behind the deadline. A guard that is stopped, frozen or starved
// is killed by it, and everything that it supervises with it. See lease.go for
// the arithmetic. The daemon watches it by Client.Extend, which fails when
// there is no answer in 50 ms.
//
// # What that does not cover
//
// Anything that the supervised processes have others do: a systemd unit, a
// container started through a daemon, a mount, a remote database. Only what is
// in the namespace is killed. A process that waits in state D for a disk or a
// network file system cannot be killed before that answers: it issues nothing
// new, but the request under way may still be carried out.
//
// A guard that is told to end (SIGTERM) stops processes by their own rules and
// what hooks left behind by TERM and KILL; it runs no stop hooks: stop services
// through the daemon.
//
// # A tour
//
//	protocol.go, frame.go     what goes over the socket
//	client.go, spawn.go       the daemon's side
//	guard.go, server.go       the guard's side
//	lease.go, kerneltimer.go  the deadline
//	gates.go                  what is shut at it
//	unit.go, birth.go         one supervised service, and how it is born
//	hooks.go                  hooks in a unit
//	initmain.go, hookmain.go  PID 1 of a service, and what runs one hook
//	output.go, events.go      what it has to say
//	predecessor.go            what a dead guard left behind
package guard
