package consensus

import (
	"encoding/json"

	"github.com/failoverd/failoverd/cluster/state"
)

func encodeState(s *state.State) ([]byte, error) { return json.Marshal(s) }

func decodeState(data []byte) (*state.State, error) {
	s := &state.State{}
	if err := strict(data, s); err != nil {
		return nil, err
	}
	return s, nil
}
