package integration

import (
	"os"
	"testing"

	"github.com/failoverd/failoverd/integration/lab"
)

// denial is why this process cannot have a lab; nil when it can.
var denial error

func TestMain(m *testing.M) {
	denial = lab.Enter()
	os.Exit(m.Run())
}
