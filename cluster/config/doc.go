// Package config reads the two files that users write: a node's own file and
// the cluster's services. Both are HCL, or the same language in JSON when the
// name ends in .json.
//
// Reading is strict. A key that is not known, a value of another type than
// asked for, a variable or a function is a mistake, and every mistake of a file
// is reported in one go, each as a Problem with file, line and column. Nothing
// on the host is touched by reading; what can only be learnt from the host
// (ports, interfaces, directories) is asked by Node.CheckHost and
// CheckInterfaces.
//
// Only plain values are allowed, since an expression would make two nodes with
// the same text behave differently and since a configuration file is no place
// for a program.
package config
