// Package render turns what a node answers into text for people. It fetches
// nothing and knows no clock: the same answer gives the same text.
//
// Whatever comes from the cluster may hold what a program printed or a stranger
// typed; nothing of it reaches a terminal as a control character.
package render
