package render

import (
	"strings"
)

// table is rows of cells whose columns are as wide as they need to be. A cell
// may be painted. Columns that are empty in every row are left out, so that
// what nobody has takes no room.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// String gives the lines, each with its line end.
func (t *table) String() string {
	widths := make([]int, len(t.head))
	for _, row := range t.rows {
		for i, cell := range row {
			widths[i] = max(widths[i], visible(cell))
		}
	}
	last := 0
	for i, w := range widths {
		if w > 0 {
			widths[i] = max(w, visible(t.head[i]))
			last = i
		}
	}
	var b strings.Builder
	for _, row := range append([][]string{t.head}, t.rows...) {
		var line strings.Builder
		for i, cell := range row {
			switch {
			case widths[i] == 0:
			case i == last:
				line.WriteString(cell)
			default:
				line.WriteString(cell + strings.Repeat(" ", widths[i]-visible(cell)+2))
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}
