package main

import "fmt"

func nodes(c uint8) string {
	out := "{"
	for i := range maxNodes {
		if c&bit(i) != 0 {
			if len(out) > 1 {
				out += " "
			}
			out += fmt.Sprintf("v%d", i+1)
		}
	}
	return out + "}"
}

func entryWords(e entry) string {
	switch e.kind() {
	case eStart:
		return fmt.Sprintf("LeaderStart of term %d", e.term())
	case eStarted:
		return fmt.Sprintf("Started(v%d, start %d)", e.arg()&3+1, e.arg()>>2)
	case eClose:
		return "CloseSession(1)"
	case eEnd:
		return "EndSession(1, expired)"
	case eOpen2:
		return "OpenSession(a), which is session 2 and closes 1"
	case eConfig:
		return "configuration " + nodes(e.arg())
	}
	return "nothing"
}

// tell puts an action into words, with what followed from it.
func (m *leaseModel) tell(a act, before, after *leaseState) string {
	var line string
	switch a.kind {
	case aTick:
		line = "a tick passes"
	case aSend:
		line = fmt.Sprintf("a sends Renew(%d) under %s", a.c, nodes(a.b))
		if !m.slowOK && !m.f["check-and-note-apart"] {
			line += fmt.Sprintf(", v%d says OK", a.a)
		}
	case aOK:
		line = fmt.Sprintf("v%d says OK to session %d, sent %d ticks ago", a.a+1, a.c, before.r[a.b].age)
	case aCheckOK:
		line = fmt.Sprintf("v%d checks a renewal and finds it good, but has not noted it yet", a.a+1)
	case aNoteOK:
		line = fmt.Sprintf("v%d notes the renewal that it has checked and says OK", a.a+1)
	case aReceive:
		line = fmt.Sprintf("a receives v%d's OK to session %d", a.a+1, a.c)
	case aElect:
		line = fmt.Sprintf("v%d is elected in term %d by %s", a.a+1, a.c, nodes(a.b))
	case aClose, aOpen2, aEnd, aStarted:
		line = fmt.Sprintf("v%d, leading in term %d, appends %s", a.a+1, before.v[a.a].term, entryWords(after.v[a.a].log[before.v[a.a].length]))
	case aCheckDue:
		line = fmt.Sprintf("v%d finds that D has passed", a.a+1)
	case aCheckChange:
		line = fmt.Sprintf("v%d, leading in term %d, finds that it may change %s to %s", a.a+1, before.v[a.a].term, nodes(a.b), nodes(a.c))
	case aChange:
		line = fmt.Sprintf("v%d, leading in term %d, appends configuration %s in place of %s", a.a+1, before.v[a.a].term, nodes(a.c), nodes(a.b))
	case aReplicate:
		line = fmt.Sprintf("v%d takes entry %d from v%d: %s", a.b+1, a.c+1, a.a+1, entryWords(before.v[a.a].log[a.c]))
		if a.c < before.v[a.b].length {
			line += fmt.Sprintf(", and drops %s", entryWords(before.v[a.b].log[a.c]))
		}
	case aHeartbeat:
		line = fmt.Sprintf("v%d hears of term %d from v%d", a.b+1, after.v[a.b].term, a.a+1)
	case aApply:
		line = fmt.Sprintf("v%d applies %s", a.a+1, entryWords(before.v[a.a].log[before.v[a.a].applied]))
	case aRestart:
		line = fmt.Sprintf("v%d restarts", a.a+1)
	case aAsk:
		line = fmt.Sprintf("v%d asks v%d to confirm the close", a.a+1, a.b+1)
	case aAnswer:
		line = fmt.Sprintf("v%d answers v%d: closed, renewed %d ticks ago or more", a.a+1, a.b+1, before.v[a.a].note)
	case aGoBack:
		line = fmt.Sprintf("v%d restores a snapshot from before the close", a.a+1)
	}
	if after.left > before.left {
		line += fmt.Sprintf("; a may serve for another %d ticks", after.left)
	}
	for l := range m.nodes {
		for i := range m.nodes {
			if age := after.v[l].bound[i]; !m.slowAsk && age > 0 && age > before.v[l].bound[i] && a.kind != aTick {
				line += fmt.Sprintf("; v%d confirms the close to v%d, renewed %d ticks ago", i+1, l+1, age-1)
			}
		}
	}
	for n := before.ncom; n < after.ncom; n++ {
		line += "; committed: " + entryWords(after.com[n])
	}
	if after.ended > before.ended {
		line += "; b serves"
	}
	return line
}
