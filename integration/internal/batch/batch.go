// Package batch is what the commands share that run many tests of this module.
package batch

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// InTurn calls f for 0 to n-1, so many at a time.
func InTurn(n, jobs int, f func(i int)) {
	turns := make(chan struct{}, jobs)
	var wg sync.WaitGroup
	for i := range n {
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			f(i)
		})
	}
	wg.Wait()
}

// ModuleRoot is the directory of go.mod above the working directory.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("no go.mod above %s: run it inside the repository", dir)
		}
	}
}
