package main

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// service answers requests in the name of one node and epoch.
type service struct {
	node   string
	epoch  uint64
	refuse bool
	store  *store // nil: no state
}

// reply is the body of every answer.
type reply struct {
	Node     string `json:"node"`
	Epoch    uint64 `json:"epoch"`
	Sequence uint64 `json:"sequence"`
	Value    int64  `json:"value"`
}

func (s *service) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /get", func(w http.ResponseWriter, _ *http.Request) {
		if s.store == nil {
			s.answer(w, 0, 0)
			return
		}
		sequence, value, err := s.store.read()
		s.finish(w, sequence, value, err)
	})
	mux.HandleFunc("POST /add", func(w http.ResponseWriter, r *http.Request) {
		value, err := strconv.ParseInt(r.FormValue("n"), 10, 64)
		if err != nil {
			http.Error(w, "n must be a number", http.StatusBadRequest)
			return
		}
		if s.store == nil {
			s.answer(w, 0, value)
			return
		}
		sequence, err := s.store.add(value)
		s.finish(w, sequence, value, err)
	})
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		if s.store == nil {
			s.answer(w, 0, 0)
			return
		}
		sequence, value, err := s.store.read()
		s.finish(w, sequence, value, err)
	})
	return mux
}

func (s *service) finish(w http.ResponseWriter, sequence uint64, value int64, err error) {
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case s.refuse && s.store.overtaken():
		http.Error(w, "a newer epoch has begun", http.StatusServiceUnavailable)
	default:
		s.answer(w, sequence, value)
	}
}

func (s *service) answer(w http.ResponseWriter, sequence uint64, value int64) {
	body, err := json.Marshal(reply{Node: s.node, Epoch: s.epoch, Sequence: sequence, Value: value})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the client has gone: its loss
}
