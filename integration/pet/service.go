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
	book   *book  // nil: no state
}

// reply is the body of every answer.
type reply struct {
	Node     string `json:"node"`
	Epoch    uint64 `json:"epoch"`
	Sequence uint64 `json:"sequence"`
	Value    int64  `json:"value"`
	// Members are what a set has, in order.
	Members []uint64 `json:"members,omitempty"`
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
	if s.book != nil {
		s.openBook(mux)
	}
	return mux
}

// openBook adds what the book answers.
func (s *service) openBook(mux *http.ServeMux) {
	mux.HandleFunc("GET /register", s.keyed(func(key uint32, _ uint64) (r reply, err error) {
		sequence, value, err := s.book.read(key)
		return reply{Sequence: sequence, Value: int64(value)}, err
	}))
	mux.HandleFunc("POST /register", s.keyed(func(key uint32, n uint64) (r reply, err error) {
		r.Sequence, err = s.book.change(opWrite, key, n)
		r.Value = int64(n)
		return r, err
	}))
	mux.HandleFunc("GET /set", s.keyed(func(key uint32, _ uint64) (r reply, err error) {
		r.Sequence, r.Members, err = s.book.members(key)
		return r, err
	}))
	mux.HandleFunc("POST /set", s.keyed(func(key uint32, n uint64) (r reply, err error) {
		r.Sequence, err = s.book.change(opAdd, key, n)
		r.Value = int64(n)
		return r, err
	}))
}

// keyed reads the key and the number of a request to the book.
func (s *service) keyed(do func(key uint32, n uint64) (reply, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		key, err := strconv.ParseUint(r.FormValue("key"), 10, 32)
		if err != nil {
			http.Error(w, "key must be a number below 2^32", http.StatusBadRequest)
			return
		}
		n, err := strconv.ParseUint(r.FormValue("n"), 10, 63)
		if err != nil && r.Method != http.MethodGet {
			http.Error(w, "n must be a number below 2^63", http.StatusBadRequest)
			return
		}
		answer, err := do(uint32(key), n)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		s.send(w, answer)
	}
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
	s.send(w, reply{Sequence: sequence, Value: value})
}

// send answers in the name of this node and epoch.
func (s *service) send(w http.ResponseWriter, r reply) {
	r.Node, r.Epoch = s.node, s.epoch
	body, err := json.Marshal(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the client has gone: its loss
}
