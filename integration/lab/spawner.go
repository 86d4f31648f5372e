package lab

import (
	"os/exec"
	"runtime"
)

// spawner starts processes from one thread that lives as long as the lab:
// PR_SET_PDEATHSIG fires when the thread that forked ends, not the process.
type spawner struct {
	work chan func()
	done chan struct{}
}

func newSpawner() *spawner {
	s := &spawner{work: make(chan func()), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		runtime.LockOSThread()
		for fn := range s.work {
			fn()
		}
	}()
	return s
}

func (s *spawner) start(cmd *exec.Cmd) error {
	result := make(chan error, 1)
	s.work <- func() { result <- cmd.Start() }
	return <-result
}

// stop ends the thread, and with it every process started from it.
func (s *spawner) stop() {
	close(s.work)
	<-s.done
}
