package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the messages of testdata/bad anew; read the difference before it is committed")

// TestBadInput loads each file of testdata/bad and compares what the user is
// told with the case's file "message".
func TestBadInput(t *testing.T) {
	root, err := filepath.Abs("testdata/bad")
	if err != nil {
		t.Fatal(err)
	}
	cases, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Name(), func(t *testing.T) {
			files, err := filepath.Glob(filepath.Join(root, c.Name(), "*.[hj]*"))
			if err != nil || len(files) != 1 {
				t.Fatalf("a case has one file to load, here: %v (%v)", files, err)
			}
			name := filepath.Base(files[0])
			src, err := os.ReadFile(files[0])
			if err != nil {
				t.Fatal(err)
			}
			// Messages hold the path and sometimes the mode, which a checkout does not keep.
			t.Chdir(t.TempDir())
			if err := os.WriteFile(name, src, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(name, 0o644); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(name, "node") {
				_, err = LoadNode(name)
			} else {
				_, err = LoadServices(name)
			}
			if err == nil {
				t.Fatal("was accepted")
			}
			golden := filepath.Join(root, c.Name(), "message")
			if *update {
				if err := os.WriteFile(golden, []byte(err.Error()+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, readErr := os.ReadFile(golden)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if diff := cmp.Diff(string(want), err.Error()+"\n"); diff != "" {
				t.Error(diff)
			}
		})
	}
}
