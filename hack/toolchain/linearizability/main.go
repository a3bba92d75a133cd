// linearizable decides whether recorded histories of one asset's Allocates and Releases are linearizable.
//
//	linearizable [-seconds N] HISTORY.json...
//
// Prints one line a file. Exit status 0: all are; 1: one is not (a picture lies beside it as HISTORY.json.html); 2: a
// file is unreadable; 3: undecided in time.
//
// The model is sequential and has the ledger's own words for results. What nobody was told the result of may have
// happened at any time after its call, also never: it is given no end, so the search may place it behind everything.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

type history struct {
	Capacity   int         `json:"capacity"`
	Operations []operation `json:"operations"`
}

// Times in nanoseconds of one clock. Amount is what an Allocate asks for, the same whenever its ID is asked for; of a
// read, what was reserved.
type operation struct {
	Client int    `json:"client"`
	Call   int64  `json:"call"`
	Return int64  `json:"return"`
	Kind   string `json:"kind"`
	ID     int    `json:"id"`
	Amount int    `json:"amount"`
	Result string `json:"result"`
}

const (
	committed = "Committed"
	unknown   = "Unknown"
	full      = "InsufficientCapacity"
	ended     = "AllocationEnded"
	missing   = "NoSuchAllocation"
	isOver    = "Over" // by this release, or by another

	absent, active, over = 'n', 'a', 'e'
)

// What the ledger holds.
type state struct {
	free   int
	phases string // one letter an allocation
}

func (s state) with(id int, phase byte, free int) state {
	phases := []byte(s.phases)
	phases[id] = phase
	return state{free, string(phases)}
}

// The result that the ledger must give in this state, and the state thereafter. amount: of the operation's allocation.
func (s state) run(op operation, amount int) (string, state) {
	if op.Kind == "read" {
		return committed, s
	}
	switch phase := s.phases[op.ID]; {
	case phase == over:
		return ended, s
	case op.Kind == "allocate" && phase == active:
		return committed, s
	case op.Kind == "allocate" && amount > s.free:
		return full, s
	case op.Kind == "allocate":
		return committed, s.with(op.ID, active, s.free-amount)
	case phase == absent:
		return missing, s
	default:
		return committed, s.with(op.ID, over, s.free+amount)
	}
}

func model(h history) porcupine.Model {
	amounts := map[int]int{}
	ids := 0
	for _, op := range h.Operations {
		ids = max(ids, op.ID+1)
		if op.Kind == "allocate" {
			amounts[op.ID] = op.Amount
		}
	}
	return porcupine.Model{
		Init: func() any { return state{h.Capacity, strings.Repeat(string(rune(absent)), ids)} },
		Step: func(before, input, _ any) (bool, any) {
			op := input.(operation)
			result, after := before.(state).run(op, amounts[op.ID])
			switch op.Result {
			case unknown:
				return true, after
			case isOver:
				return result == committed || result == ended, after
			}
			reads := op.Kind != "read" || h.Capacity-after.free == op.Amount
			return op.Result == result && reads, after
		},
		DescribeOperation: func(input, _ any) string {
			op := input.(operation)
			return fmt.Sprintf("%s(%d, %d): %s", op.Kind, op.ID, op.Amount, op.Result)
		},
		DescribeState: func(s any) string { return fmt.Sprintf("%d free, %s", s.(state).free, s.(state).phases) },
	}
}

func read(path string) (history, error) {
	var h history
	text, err := os.ReadFile(path)
	if err != nil {
		return h, err
	}
	if err := json.Unmarshal(text, &h); err != nil {
		return h, err
	}
	for _, op := range h.Operations {
		if op.Kind != "allocate" && op.Kind != "release" && op.Kind != "read" || op.ID < 0 || op.Return < op.Call {
			return h, fmt.Errorf("no such operation: %+v", op)
		}
	}
	return h, nil
}

func check(h history, limit time.Duration, picture string) (porcupine.CheckResult, error) {
	operations := make([]porcupine.Operation, 0, len(h.Operations))
	for _, op := range h.Operations {
		end := op.Return
		if op.Result == unknown {
			end = math.MaxInt64
		}
		operations = append(operations, porcupine.Operation{ClientId: op.Client, Input: op, Call: op.Call, Return: end})
	}
	result, info := porcupine.CheckOperationsVerbose(model(h), operations, limit)
	if result != porcupine.Illegal {
		return result, nil
	}
	return result, porcupine.VisualizePath(model(h), info, picture)
}

func main() {
	seconds := flag.Int("seconds", 60, "longest search for each history")
	flag.Parse()
	status := 0
	for _, path := range flag.Args() {
		h, err := read(path)
		var result porcupine.CheckResult
		if err == nil {
			result, err = check(h, time.Duration(*seconds)*time.Second, path+".html")
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			os.Exit(2)
		}
		switch result {
		case porcupine.Ok:
			fmt.Printf("%s: %d operations, linearizable\n", path, len(h.Operations))
		case porcupine.Illegal:
			fmt.Printf("%s: %d operations, NOT linearizable: see %s.html\n", path, len(h.Operations), path)
			status = max(status, 1)
		default:
			fmt.Printf("%s: %d operations, undecided after %d s\n", path, len(h.Operations), *seconds)
			status = 3
		}
	}
	os.Exit(status)
}
