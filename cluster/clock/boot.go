package clock

import (
	"fmt"
	"os"
	"strings"
)

const bootIDFile = "/proc/sys/kernel/random/boot_id" // random(4)

// BootID returns the kernel's name for this boot: a UUID drawn when the machine
// started. Two readings may be compared only under the same one.
func BootID() (string, error) { return readBootID(bootIDFile) }

func readBootID(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read boot id: %w; is /proc mounted?", err)
	}
	id := strings.TrimSpace(string(b))
	if id == "" {
		return "", fmt.Errorf("read boot id: %s is empty; is /proc mounted?", path)
	}
	return id, nil
}
