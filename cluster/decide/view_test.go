package decide

import (
	"testing"
	"time"
)

// A node that does not lead, or has not loaded its log yet, knows of no voters
// and is asked for its status all the same.
func TestQuietIsUnknownWithoutVoters(t *testing.T) {
	v := SessionView{Ages: map[string]time.Duration{"a": time.Second}}
	if age, known := v.quiet(nil); known {
		t.Errorf("known to be quiet for %v by no voters at all", age)
	}
	if age, known := (SessionView{}).quiet([]string{"a"}); known {
		t.Errorf("known to be quiet for %v, and nobody has told", age)
	}
	if age, known := v.quiet([]string{"a"}); !known || age != time.Second {
		t.Errorf("%v, known %v; want the only voter's word", age, known)
	}
}
