package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// The committed Go code is what the .proto files and the pinned plugins give.
func TestGeneratedCodeIsCurrent(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // the first run builds the plugins
	defer cancel()
	files, err := generate(ctx, "..")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 2 {
		t.Fatalf("only %d files generated", len(files))
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Errorf("%v: run `go run ./proto/gen`", err)
			continue
		}
		if string(got) != string(want) {
			t.Errorf("%s is not what its .proto file gives: run `go run ./proto/gen`", name)
		}
	}
	// Nothing generated stays behind when its source is gone.
	committed, err := filepath.Glob("../failover/v1/*.pb.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range committed {
		name, err := filepath.Rel("..", path)
		if err != nil {
			t.Fatal(err)
		}
		if files[filepath.ToSlash(name)] == nil {
			t.Errorf("%s comes from no .proto file: remove it", path)
		}
	}
}

// Every service, method, message, field, enum and value says what it is.
func TestEverythingIsCommented(t *testing.T) {
	files, err := compile(context.Background(), "..")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		check := func(d protoreflect.Descriptor) {
			if strings.TrimSpace(file.SourceLocations().ByDescriptor(d).LeadingComments) == "" {
				t.Errorf("%s: %s has no comment", file.Path(), d.FullName())
			}
		}
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			check(service)
			for j := range service.Methods().Len() {
				check(service.Methods().Get(j))
			}
		}
		for i := range file.Enums().Len() {
			enum := file.Enums().Get(i)
			check(enum)
			for j := range enum.Values().Len() {
				check(enum.Values().Get(j))
			}
		}
		for i := range file.Messages().Len() {
			message := file.Messages().Get(i)
			check(message)
			for j := range message.Fields().Len() {
				check(message.Fields().Get(j))
			}
		}
	}
}
