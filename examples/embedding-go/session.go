package main

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log"
	"sync"
	"time"
)

// deadline is the limit for each operation of the store.
const deadline = 2 * time.Second

// Errors of a Store. Any other error means that the store is unavailable.
var (
	// ErrMissing says that there is no such session.
	ErrMissing = errors.New("there is no such session")
	// ErrTaken says that the identifier is in use.
	ErrTaken = errors.New("the identifier is in use")
	// ErrRefused says that the store can never keep such a session.
	ErrRefused = errors.New("the store refuses the session")
)

// ConflictError says that the stored text is not the expected one.
type ConflictError struct {
	// Now is the session that is stored.
	Now Stored
}

// Error says that the session is another one.
func (*ConflictError) Error() string { return "the stored session is another one" }

// Store keeps texts under identifiers, byte for byte, until they expire. It treats an expired session
// as missing. Errors are logged: they must contain no identifier and no password. Load, Touch and
// Delete return ErrMissing if there is no such session.
type Store interface {
	// Load returns the session.
	Load(ctx context.Context, id string) (Stored, error)
	// Create stores a session under a new identifier, or returns ErrTaken. It never overwrites.
	Create(ctx context.Context, id string, content Content) error
	// Replace replaces the stored text, and creates a missing session. With expected, it replaces only
	// that text, and else returns a *ConflictError or ErrMissing: comparing and writing are one atomic
	// operation.
	Replace(ctx context.Context, id string, content Content, expected *string) error
	// Touch sets the time at which the session expires, and leaves its text.
	Touch(ctx context.Context, id string, expires uint64) error
	// Delete deletes the session; with expected, only that text, as Replace does.
	Delete(ctx context.Context, id string, expected *string) error
}

// Sessions runs the loop of a request: it calls the component, and performs what it asks for.
type Sessions struct {
	engine *Engine
	store  Store
	seed   maphash.Seed
	// Writes with the condition that the text is unchanged take turns, so that requests that change
	// one session at once do not make each other fail. Some sessions share a turn.
	turns [256]sync.Mutex
}

// NewSessions combines the component and a store.
func NewSessions(engine *Engine, store Store) *Sessions {
	return &Sessions{engine: engine, store: store, seed: maphash.MakeSeed()}
}

// begin returns how a request begins, and what was loaded last.
func (s *Sessions) begin(request Request) (Beginning, *Stored, error) {
	var stored *Stored
	begun, err := s.engine.Begin(request)
	for err == nil && begun.Case == "load" {
		var loaded Loaded
		stored, loaded = nil, Loaded{Case: "ok"}
		obstacle := s.perform(Write{ID: begun.Load.ID, Operation: Operation{Case: "load"}}, nil)
		switch obstacle.Case {
		case "conflict":
			stored = &obstacle.Conflict
			loaded.Ok = stored
		case "refused", "unavailable":
			loaded = Loaded{Case: "err", Err: obstacle.Refused + obstacle.Unavailable}
		}
		begun, err = s.engine.Loaded(begun.Load, loaded)
	}
	switch origin := begun.Ready.Origin; origin {
	case "damaged", "detached":
		log.Printf("a request continues without its session, which is %s", origin)
	}
	return begun, stored, err
}

// finish stores the change of a request. It runs to its end even if the visitor disconnects.
func (s *Sessions) finish(visit Visit, stored *Stored, change Change) (Outcome, error) {
	var turn *sync.Mutex
	defer func() {
		if turn != nil {
			turn.Unlock()
		}
	}()
	seen := stored
	plan, err := s.engine.Finish(visit, stored, change)
	for at := 0; err == nil && at < len(plan.Writes); at++ {
		write := plan.Writes[at]
		if next := s.turn(write); write.IfUnchanged && next != turn {
			if turn != nil {
				turn.Unlock()
			}
			turn = next
			turn.Lock()
		}
		obstacle := s.perform(write, seen)
		if obstacle == nil {
			continue
		}
		if obstacle.Case == "conflict" {
			seen = &obstacle.Conflict
		}
		plan, err = s.engine.Resume(plan.Visit, stored, change, at, *obstacle)
		at = -1 // The new plan is performed from its first write.
	}
	return plan.Outcome, err
}

func (s *Sessions) turn(write Write) *sync.Mutex {
	return &s.turns[maphash.String(s.seed, write.ID)%uint64(len(s.turns))]
}

// perform performs a write, and returns the obstacle that it met. seen is the session as it was last
// seen in this request.
func (s *Sessions) perform(write Write, seen *Stored) *Obstacle {
	// Not the context of the request, which ends when the visitor disconnects.
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	var expected *string
	if write.IfUnchanged {
		expected = new(string) // If none was seen, a text that no session has.
		if seen != nil {
			expected = &seen.Data
		}
	}
	var err error
	switch do := write.Operation; do.Case {
	case "load":
		var now Stored
		if now, err = s.store.Load(ctx, write.ID); err == nil {
			return &Obstacle{Case: "conflict", Conflict: now}
		}
	case "create":
		err = s.store.Create(ctx, write.ID, do.Create)
	case "replace":
		err = s.store.Replace(ctx, write.ID, do.Replace, expected)
	case "touch":
		err = s.store.Touch(ctx, write.ID, do.Touch)
	case "delete":
		err = s.store.Delete(ctx, write.ID, expected)
	default:
		err = fmt.Errorf("the operation is unknown")
	}
	var conflict *ConflictError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &conflict):
		return &Obstacle{Case: "conflict", Conflict: conflict.Now}
	case errors.Is(err, ErrMissing):
		return &Obstacle{Case: "missing"}
	case errors.Is(err, ErrTaken):
		return &Obstacle{Case: "taken"}
	case errors.Is(err, ErrRefused):
		return &Obstacle{Case: "refused", Refused: err.Error()}
	}
	log.Printf("the store is unavailable: %s: %v", write.Operation.Case, err)
	return &Obstacle{Case: "unavailable", Unavailable: fmt.Sprintf("%s: %v", write.Operation.Case, err)}
}
