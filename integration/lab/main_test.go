package lab

import (
	"fmt"
	"os"
	"testing"
)

// denial is why this process cannot have a lab; nil when it can.
var denial error

func TestMain(m *testing.M) {
	denial = Enter()
	if os.Getenv(victimVariable) != "" {
		victim()
	}
	code := m.Run()
	os.Exit(code)
}

// newLab makes a lab for the test and closes it after.
func newLab(t *testing.T, hosts ...string) *Lab {
	t.Helper()
	if denial != nil {
		t.Skip(denial)
	}
	l, err := New(Options{Hosts: hosts, Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close lab: %v", err)
		}
	})
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func show(all []Interval) string { return fmt.Sprint(all) }
