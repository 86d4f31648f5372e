package consensus

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/failoverd/failoverd/cluster/state"
)

// declaredCommands reads from package state's source which types have a Kind
// method, so that a new command cannot be forgotten here.
func declaredCommands(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("../state/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("source of package state: %v, %v", files, err)
	}
	types := map[string]bool{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, source, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv == nil || fn.Name.Name != "Kind" {
				continue
			}
			recv := fn.Recv.List[0].Type
			if star, ok := recv.(*ast.StarExpr); ok {
				recv = star.X
			}
			types[recv.(*ast.Ident).Name] = true
		}
	}
	return types
}

func TestEveryCommandHasAPlaceInTheLog(t *testing.T) {
	declared := declaredCommands(t)
	if len(declared) < 18 {
		t.Fatalf("only %d commands found in package state", len(declared))
	}
	registered := map[string]bool{}
	for _, typ := range kinds {
		registered[typ.Name()] = true
	}
	if diff := cmp.Diff(declared, registered); diff != "" {
		t.Errorf("commands of package state (-) and of the log (+):\n%s", diff)
	}
}

// draw fills a value of any type that a command is made of.
func draw(t *rapid.T, v reflect.Value, name string) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			draw(t, v.Field(i), name+"."+v.Type().Field(i).Name)
		}
	case reflect.Pointer:
		if rapid.Bool().Draw(t, name+"?") {
			v.Set(reflect.New(v.Type().Elem()))
			draw(t, v.Elem(), name)
		}
	case reflect.Slice:
		n := rapid.IntRange(0, 3).Draw(t, name+"#")
		if n == 0 {
			return // nil: an empty slice comes back as nil or empty, which is the same to a command
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			draw(t, v.Index(i), fmt.Sprint(name, i))
		}
	case reflect.Map:
		n := rapid.IntRange(0, 3).Draw(t, name+"#")
		if n == 0 {
			return
		}
		v.Set(reflect.MakeMap(v.Type()))
		for i := range n {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			draw(t, key, fmt.Sprint(name, i))
			draw(t, value, fmt.Sprint(name, i, "="))
			v.SetMapIndex(key, value)
		}
	case reflect.String:
		v.SetString(rapid.String().Draw(t, name))
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, name))
	case reflect.Int, reflect.Int64:
		v.SetInt(rapid.Int64().Draw(t, name))
	case reflect.Uint64:
		v.SetUint(rapid.Uint64().Draw(t, name))
	case reflect.Uint8:
		v.SetUint(uint64(rapid.Byte().Draw(t, name)))
	default:
		t.Fatalf("%s: a command has a field of kind %s", name, v.Kind())
	}
}

func TestCommandsComeBackAsTheyWere(t *testing.T) {
	for kind, typ := range kinds {
		t.Run(kind, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				v := reflect.New(typ)
				draw(t, v.Elem(), typ.Name())
				want := v.Elem().Interface().(state.Command)
				data, err := EncodeCommand(want)
				if err != nil {
					t.Fatal(err)
				}
				got, err := DecodeCommand(data)
				if err != nil {
					t.Fatalf("%s: %v", data, err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("%s", diff)
				}
				// A pointer to a command is the same command.
				if again, err := EncodeCommand(v.Interface().(state.Command)); err != nil || string(again) != string(data) {
					t.Fatalf("by pointer: %s, %v", again, err)
				}
			})
		})
	}
}

func TestWhatIsNotKnownExactlyIsUnknown(t *testing.T) {
	good := `{"v":1,"kind":"leader","command":{"node":"a"}}`
	if _, err := DecodeCommand([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"nothing":                 ``,
		"not JSON":                `leader a`,
		"later version":           `{"v":2,"kind":"leader","command":{"node":"a"}}`,
		"no version":              `{"kind":"leader","command":{"node":"a"}}`,
		"unknown kind":            `{"v":1,"kind":"promote","command":{"node":"a"}}`,
		"unknown field":           `{"v":1,"kind":"leader","command":{"node":"a","zone":"x"}}`,
		"unknown in the envelope": `{"v":1,"kind":"leader","command":{"node":"a"},"sum":1}`,
		"another type":            `{"v":1,"kind":"leader","command":{"node":1}}`,
		"no command":              `{"v":1,"kind":"leader"}`,
		"null":                    `{"v":1,"kind":"leader","command":null}`,
		"something follows":       good + `{}`,
		"a bracket follows":       good + `]`,
		"cut":                     good[:len(good)-2],
		"number too large":        `{"v":1,"kind":"grant","command":{"epoch":18446744073709551616}}`,
		"negative where not":      `{"v":1,"kind":"grant","command":{"epoch":-1}}`,
	} {
		cmd, err := DecodeCommand([]byte(data))
		if !errors.Is(err, ErrUnknownCommand) || !strings.Contains(err.Error(), "upgrade failoverd on this node") {
			t.Errorf("%s: %v, %v", name, cmd, err)
		}
	}
}

// stranger is a command that the log has no place for.
type stranger struct{}

func (stranger) Kind() string { return "leader" }

func TestOnlyCommandsOfTheLogAreWritten(t *testing.T) {
	for _, cmd := range []state.Command{nil, stranger{}, (*state.Found)(nil)} {
		if data, err := EncodeCommand(cmd); err == nil {
			t.Errorf("%T is written as %s", cmd, data)
		}
	}
}

func FuzzDecodeCommand(f *testing.F) {
	for _, typ := range kinds {
		data, err := EncodeCommand(reflect.New(typ).Elem().Interface().(state.Command))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"v":1,"kind":"services","command":{"services":[{"name":"erp","takeover":"lease","priorities":{"a":2},"resources":[{"kind":"vip","name":"v","vip":{"address":"192.0.2.100/24","interface":"eth0"}}]}]}}`))
	f.Add([]byte(`{"v":1,"kind":"found","command":{"id":"x","key":"AAAA"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		cmd, err := DecodeCommand(data)
		if err != nil {
			if !errors.Is(err, ErrUnknownCommand) {
				t.Fatalf("%v", err)
			}
			return
		}
		// What is read is written, and read again as the same.
		again, err := EncodeCommand(cmd)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeCommand(again)
		if err != nil {
			t.Fatal(err)
		}
		one, _ := json.Marshal(cmd)
		two, _ := json.Marshal(back)
		if string(one) != string(two) {
			t.Fatalf("%s\n%s", one, two)
		}
	})
}
