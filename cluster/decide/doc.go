// Package decide says who should hold what, and which step is next. It never
// acts: a View goes in, steps come out, each with its reason in words.
//
// It has two faces. Leader looks at the whole cluster with the eyes of the
// Raft leader and names the entries to commit and the questions to ask.
// Member looks at one node and names what that node may and must do with the
// services that are granted to it. The caller's loop is the same for both:
//
//	for {
//		view := gather()
//		plan := decide.Leader(view)   // or decide.Member
//		do(plan.Steps)                // every step may be done twice
//		wait(plan.Wake, news)         // then look again
//	}
//
// Nothing is remembered between two calls: what a step has changed is seen in
// the next view, or the step is named again. There is no time here either: the
// view holds ages and durations that the caller has measured.
package decide
