package consensus

import "github.com/failoverd/failoverd/cluster"

// Layer names the one founder that lays the first configuration: the one whose
// address sorts first. Empty without founders.
func Layer(founders []cluster.Founder) string {
	var first cluster.Founder
	for _, f := range founders {
		if f.Role.Votes() && (first.Node == "" || f.Address < first.Address) {
			first = f
		}
	}
	return first.Node
}
