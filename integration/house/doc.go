// Package house holds the tests of the house itself: which package may import
// which, and what the documents promise.
package house
