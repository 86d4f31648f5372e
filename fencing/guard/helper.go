package guard

// Helper makes this process what the guard starts itself as: an init, or the
// runner of a hook. main calls it before anything else; when handled it exits
// with the code. It looks at nothing but the first argument.
func Helper(args []string) (code int, handled bool) {
	if len(args) != 2 {
		return 0, false
	}
	switch args[1] {
	case initArg:
		return initMain(), true
	case hookArg:
		return hookMain(), true
	}
	return 0, false
}
