package consensus

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"

	"github.com/failoverd/failoverd/cluster/state"
)

// EnvelopeVersion is the version of the log's encoding that this node writes,
// and the only one it reads.
const EnvelopeVersion = 1

// ErrUnknownCommand means that a log entry was written by a version that knows
// more than this one. The entry is committed all the same: a node that skipped
// it would differ from the others, so it must not apply anything after it.
var ErrUnknownCommand = errors.New("log entry is not known to this version: upgrade failoverd on this node to the version of the others, its data is kept")

// envelope is how a command stands in the log.
type envelope struct {
	Version int             `json:"v"`
	Kind    string          `json:"kind"`
	Command json.RawMessage `json:"command"`
}

// kinds maps the kind in an envelope to the command's type. A test holds it
// against every command that package state declares.
var kinds = registry(
	state.Found{}, state.LeaderStart{}, state.SetNode{}, state.RemoveNode{}, state.Started{},
	state.OpenSession{}, state.CloseSession{}, state.EndSession{}, state.StartFence{},
	state.GrantService{}, state.HandOver{}, state.Released{}, state.SetServices{},
	state.SetPause{}, state.SetStandby{}, state.RequestMove{}, state.ReportFailure{}, state.ClearFailures{},
)

func registry(commands ...state.Command) map[string]reflect.Type {
	m := make(map[string]reflect.Type, len(commands))
	for _, c := range commands {
		m[c.Kind()] = reflect.TypeOf(c)
	}
	return m
}

// EncodeCommand writes a command, or a pointer to one, as it stands in the log.
// It fails for a command that DecodeCommand would not read.
func EncodeCommand(cmd state.Command) ([]byte, error) {
	v := reflect.ValueOf(cmd)
	if v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if !v.IsValid() || v.Kind() != reflect.Struct {
		return nil, fmt.Errorf("encode command: %T is not a command", cmd)
	}
	value := v.Interface().(state.Command)
	if kinds[value.Kind()] != v.Type() {
		return nil, fmt.Errorf("encode command: %T has no place in the log", cmd)
	}
	body, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", value.Kind(), err)
	}
	b, err := json.Marshal(envelope{Version: EnvelopeVersion, Kind: value.Kind(), Command: body})
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", value.Kind(), err)
	}
	return b, nil
}

// DecodeCommand reads what EncodeCommand wrote. Whatever it does not know
// exactly (version, kind, a field, anything that follows) is ErrUnknownCommand.
// The command comes back as a value, never as a pointer.
func DecodeCommand(data []byte) (state.Command, error) {
	var e envelope
	if err := strict(data, &e); err != nil {
		return nil, fmt.Errorf("%w (envelope: %v)", ErrUnknownCommand, err)
	}
	if e.Version != EnvelopeVersion {
		return nil, fmt.Errorf("%w (its version is %d, this node reads %d)", ErrUnknownCommand, e.Version, EnvelopeVersion)
	}
	t, ok := kinds[e.Kind]
	if !ok {
		return nil, fmt.Errorf("%w (its kind is %q)", ErrUnknownCommand, e.Kind)
	}
	if len(e.Command) == 0 || e.Command[0] != '{' {
		return nil, fmt.Errorf("%w (%s without a command)", ErrUnknownCommand, e.Kind)
	}
	p := reflect.New(t)
	if err := strict(e.Command, p.Interface()); err != nil {
		return nil, fmt.Errorf("%w (%s: %v)", ErrUnknownCommand, e.Kind, err)
	}
	return p.Elem().Interface().(state.Command), nil
}

// strict decodes exactly one value with only known fields.
func strict(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("data follows the end")
	}
	return nil
}
