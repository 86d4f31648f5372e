package main

import "fmt"

func (m *grantModel) tell(a act, before, after *grantState) string {
	name := func(i uint8) string { return string(rune('a' + i)) }
	who := name(a.a & 1)
	switch a.kind {
	case hApply:
		return fmt.Sprintf("%s applies entry %d: %s", who, a.b+1, grantWords(before, a.b))
	case hActivate:
		return fmt.Sprintf("%s journals epoch %d as active and serves", who, a.b)
	case hStop:
		return fmt.Sprintf("%s stops epoch %d", who, a.b)
	case hJournal:
		return fmt.Sprintf("%s journals epoch %d as releasing", who, a.b)
	case hReleased:
		return fmt.Sprintf("%s commits Released(%d)", who, a.b)
	case hErase:
		return fmt.Sprintf("%s erases its record of epoch %d", who, a.b)
	case hSend:
		return fmt.Sprintf("%s sends the message that epoch %d has stopped, for epoch %d", who, a.b, a.c)
	case hReceive:
		return fmt.Sprintf("%s receives the message that epoch %d has stopped, for epoch %d", who, a.b, a.c)
	case hOthersReleased:
		return fmt.Sprintf("%s, which has the message, commits Released(%d)", who, a.b)
	case hRestart:
		return fmt.Sprintf("%s's daemon restarts", who)
	case hReboot:
		return fmt.Sprintf("%s reboots", who)
	case hTake:
		return fmt.Sprintf("%s journals session %d as its own", who, a.b)
	case hRunsOut:
		line := fmt.Sprintf("the lease of session %d runs out", a.a)
		for i := range after.h {
			if before.h[i].running != after.h[i].running {
				line += fmt.Sprintf("; %s is stopped by it", name(uint8(i)))
			}
		}
		return line
	case hFenced:
		return fmt.Sprintf("%s is switched off; committed: %s", name(a.b), grantWords(after, before.n))
	}
	return "committed: " + grantWords(after, before.n)
}

func grantWords(s *grantState, i uint8) string {
	name := func(i uint8) string { return string(rune('a' + i)) }
	arg := s.log[i] & 15
	switch s.log[i] >> 4 {
	case gGrant:
		return fmt.Sprintf("Grant of the next epoch to session %d", arg)
	case gHand:
		return fmt.Sprintf("HandOver from epoch %d to session %d", s.more[i], arg)
	case gReleased:
		return fmt.Sprintf("Released(%d)", arg)
	case gClose:
		return fmt.Sprintf("CloseSession(%d)", arg)
	case gExpired:
		return fmt.Sprintf("EndSession(%d, expired)", arg)
	case gFenced:
		return fmt.Sprintf("EndSession(%d, fenced)", arg)
	case gOpen:
		return fmt.Sprintf("OpenSession of %s", name(arg))
	case gStarted:
		return fmt.Sprintf("Started(%s, start %d)", name(arg), s.more[i])
	}
	return fmt.Sprintf("epoch %d is called over without its holder's word", arg)
}
