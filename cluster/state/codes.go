package state

import "fmt"

// The codes of refusals. They are stable: programs tell refusals apart by them,
// people by Refusal.Why. Every one is exercised by a case under testdata.
const (
	// CodeAlreadyApplied: the entry lies at or below the state's index.
	CodeAlreadyApplied = "already-applied"
	// CodeTermBack: the entry's term is below that of an earlier entry.
	CodeTermBack = "term-back"
	// CodeUnknownCommand: this version does not know the command.
	CodeUnknownCommand = "unknown-command"

	// CodeBadCluster: Found without a usable identity or key.
	CodeBadCluster = "bad-cluster"
	// CodeClusterExists: the cluster was founded under another identity.
	CodeClusterExists = "cluster-exists"
	// CodeLeaderDiffers: two nodes call themselves leader of one term.
	CodeLeaderDiffers = "leader-differs"

	// CodeBadNode: a node's name, role, address or birth cannot be.
	CodeBadNode = "bad-node"
	// CodeNodeUnknown: no node of that name.
	CodeNodeUnknown = "node-unknown"
	// CodeNodeHolds: the node has an epoch that is not over.
	CodeNodeHolds = "node-holds"
	// CodeNodeSession: the node has a session that is not ended.
	CodeNodeSession = "node-session"
	// CodeNodeRole: the node's role may not hold services.
	CodeNodeRole = "node-role"
	// CodeNodeNotAllowed: the service's specification leaves the node out.
	CodeNodeNotAllowed = "node-not-allowed"
	// CodeNodeStandby: the node stands by.
	CodeNodeStandby = "node-standby"
	// CodeBadStart: Started without a nonce, birth or boot id.
	CodeBadStart = "bad-start"
	// CodeBirthDiffers: another data directory than the recorded one.
	CodeBirthDiffers = "birth-differs"

	// CodeBadSession: boot id, lease or kappa cannot be.
	CodeBadSession = "bad-session"
	// CodeSessionReplaced: the session to replace is not the node's current one.
	CodeSessionReplaced = "session-replaced"
	// CodeSessionUnknown: no such session, or it ended and was forgotten.
	CodeSessionUnknown = "session-unknown"
	// CodeSessionOpen: the session must be closed first.
	CodeSessionOpen = "session-open"
	// CodeSessionNotOpen: the session is closing or ended.
	CodeSessionNotOpen = "session-not-open"
	// CodeSessionNode: the session belongs to another node.
	CodeSessionNode = "session-node"
	// CodeSessionHolds: a released end while epochs of the session are not over.
	CodeSessionHolds = "session-holds"
	// CodeBadProof: no such kind of proof.
	CodeBadProof = "bad-proof"
	// CodeTermDiffers: an expiry computed in another term.
	CodeTermDiffers = "term-differs"
	// CodeNoFence: fenced, but no fencing was begun.
	CodeNoFence = "no-fence"
	// CodeUnsigned: vouched, but nobody signs or no reason is given.
	CodeUnsigned = "unsigned"
	// CodeSelfFence: a node would fence itself.
	CodeSelfFence = "self-fence"

	// CodePaused: the cluster or the service is paused.
	CodePaused = "paused"
	// CodeServiceUnknown: no service of that name.
	CodeServiceUnknown = "service-unknown"
	// CodeServiceRemoved: the service was removed.
	CodeServiceRemoved = "service-removed"
	// CodeBadServices: a specification that cannot be.
	CodeBadServices = "bad-services"
	// CodeAddressBusy: an address that another service may still be serving.
	CodeAddressBusy = "address-busy"

	// CodeEpochWrong: not the service's last epoch + 1.
	CodeEpochWrong = "epoch-wrong"
	// CodeEpochNotOver: an earlier epoch is not over.
	CodeEpochNotOver = "epoch-not-over"
	// CodeEpochOver: the epoch to hand over is over already.
	CodeEpochOver = "epoch-over"
	// CodeEpochUnknown: the epoch was never given, or is forgotten.
	CodeEpochUnknown = "epoch-unknown"
	// CodeEpochNode: the epoch belongs to another node.
	CodeEpochNode = "epoch-node"
	// CodeSameNode: a service would be handed over to its own holder.
	CodeSameNode = "same-node"

	// CodeMoveOpen: another move of the service is already ordered.
	CodeMoveOpen = "move-open"
	// CodeMovePointless: the target holds the service already.
	CodeMovePointless = "move-pointless"
)

// refuse makes a refusal. The sentence names what is concerned and what to do next.
func refuse(code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Why: fmt.Sprintf(format, args...)}
}
