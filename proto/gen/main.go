// Command gen writes the Go code of the .proto files below proto/. It needs
// neither protoc nor buf: the files are compiled in this process, and the two
// plugins are the tools that go.mod pins.
//
//	go run ./proto/gen
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/pluginpb"
)

// plugins are run in this order; each is a tool of go.mod.
var plugins = []string{"protoc-gen-go", "protoc-gen-go-grpc"}

func main() {
	dir := flag.String("dir", "proto", "the folder that holds the .proto files")
	flag.Parse()
	if err := run(context.Background(), *dir); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string) error {
	files, err := generate(ctx, dir)
	if err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return fmt.Errorf("write generated code: %w", err)
		}
	}
	return nil
}

// generate returns the Go files, by their path below dir.
func generate(ctx context.Context, dir string) (map[string][]byte, error) {
	compiled, err := compile(ctx, dir)
	if err != nil {
		return nil, err
	}
	request := &pluginpb.CodeGeneratorRequest{Parameter: proto.String("paths=source_relative")}
	seen := map[string]bool{}
	for _, file := range compiled {
		request.FileToGenerate = append(request.FileToGenerate, file.Path())
		addWithImports(request, file, seen)
	}
	input, err := proto.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("encode the plugins' request: %w", err)
	}
	out := map[string][]byte{}
	for _, plugin := range plugins {
		if err := runPlugin(ctx, dir, plugin, input, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// compile parses and links every .proto file below dir.
func compile(ctx context.Context, dir string) (linker.Files, error) {
	var names []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".proto" {
			return err
		}
		name, err := filepath.Rel(dir, path)
		names = append(names, filepath.ToSlash(name))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("find .proto files: %w", err)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no .proto file below %s: run this from the top of the repository", dir)
	}
	sort.Strings(names)
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{dir}}),
		SourceInfoMode: protocompile.SourceInfoStandard, // the comments go into the Go code
	}
	return compiler.Compile(ctx, names...)
}

// addWithImports appends file after everything that it imports, as plugins expect.
func addWithImports(request *pluginpb.CodeGeneratorRequest, file protoreflect.FileDescriptor, seen map[string]bool) {
	if seen[file.Path()] {
		return
	}
	seen[file.Path()] = true
	imports := file.Imports()
	for i := range imports.Len() {
		addWithImports(request, imports.Get(i).FileDescriptor, seen)
	}
	request.ProtoFile = append(request.ProtoFile, protoutil.ProtoFromFileDescriptor(file))
}

// runPlugin adds what one plugin generates to out.
func runPlugin(ctx context.Context, dir, plugin string, input []byte, out map[string][]byte) error {
	cmd := exec.CommandContext(ctx, "go", "tool", plugin)
	cmd.Dir = dir // inside the module, so that its pinned tool is the one that runs
	cmd.Stdin = bytes.NewReader(input)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s: %w: %s", plugin, err, strings.TrimSpace(stderr.String()))
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(stdout.Bytes(), &response); err != nil {
		return fmt.Errorf("read the answer of %s: %w", plugin, err)
	}
	if response.Error != nil {
		return fmt.Errorf("%s: %w", plugin, errors.New(response.GetError()))
	}
	for _, file := range response.File {
		out[file.GetName()] = []byte(file.GetContent())
	}
	return nil
}
