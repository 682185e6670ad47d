package main

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log"
	"sync"
	"time"
	"unicode/utf8"
)

// deadline limits each operation of the store.
const deadline = 2 * time.Second

// Errors of a Store, beside *ConflictError. Any other means that the store is unavailable.
var (
	// ErrMissing says that there is no such session.
	ErrMissing = errors.New("there is no such session")
	// ErrTaken says that the identifier is in use.
	ErrTaken = errors.New("the identifier is in use")
	// ErrRefused says that the store can never keep such a text.
	ErrRefused = errors.New("the store cannot keep this session")
)

// ConflictError says that the stored text is not the expected one.
type ConflictError struct{ Now Stored }

// Error implements error.
func (*ConflictError) Error() string { return "the stored session is another one" }

// Store keeps texts under identifiers, byte for byte. To all operations, an expired session is a
// missing one. Errors are logged: they contain no identifier.
type Store interface {
	// Load returns the session, or ErrMissing.
	Load(ctx context.Context, id string) (Stored, error)
	// Create stores a new session. It never overwrites: it returns ErrTaken.
	Create(ctx context.Context, id string, content Content) error
	// Replace replaces the stored text, and creates a missing session. If a text is expected, it
	// replaces only that one, in one atomic operation, and returns *ConflictError or ErrMissing.
	Replace(ctx context.Context, id string, content Content, expected *string) error
	// Touch moves the expiry, or returns ErrMissing.
	Touch(ctx context.Context, id string, expires uint64) error
	// Delete deletes the session, or returns ErrMissing. If a text is expected, see Replace.
	Delete(ctx context.Context, id string, expected *string) error
}

// Sessions runs the loop of each request, between the component and a store.
type Sessions struct {
	engine *Engine
	store  Store
	// Changes of one session take turns, so that they do not make each other fail again and again. A
	// turn is for all sessions with this remainder of the hash.
	turns [256]sync.Mutex
	seed  maphash.Seed
}

// NewSessions combines a component and a store.
func NewSessions(engine *Engine, store Store) *Sessions {
	return &Sessions{engine: engine, store: store, seed: maphash.MakeSeed()}
}

// begin returns how a request begins, and what was loaded last.
func (s *Sessions) begin(request Request) (Beginning, *Stored, *Failure) {
	var stored *Stored
	begun, failure := s.engine.Begin(request)
	for failure == nil && begun.Case == "load" {
		stored = nil
		loaded := Loaded{Case: "ok"}
		switch got := s.perform(Write{ID: begun.Load.ID, Operation: Operation{Case: "load"}}, nil); got.Case {
		case "conflict":
			stored = &got.Conflict
			loaded.Ok = stored
		case "refused", "unavailable":
			loaded = Loaded{Case: "err", Err: got.Refused + got.Unavailable}
		}
		begun, failure = s.engine.Loaded(begun.Load, loaded)
	}
	if origin := begun.Ready.Origin; origin == "damaged" || origin == "detached" {
		log.Printf("a request continues without its session: it is %s", origin)
	}
	return begun, stored, failure
}

// finish stores a change. It runs to its end even if the visitor disconnects.
func (s *Sessions) finish(visit Visit, stored *Stored, change Change) (Outcome, *Failure) {
	turn := new(sync.Mutex)
	turn.Lock()
	defer func() { turn.Unlock() }()
	seen := stored
	plan, failure := s.engine.Finish(visit, stored, change)
	for at := 0; failure == nil && at < len(plan.Writes); at++ {
		write := plan.Writes[at]
		next := &s.turns[maphash.String(s.seed, write.ID)%uint64(len(s.turns))]
		if write.IfUnchanged && next != turn {
			turn.Unlock()
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
		plan, failure = s.engine.Resume(plan.Visit, stored, change, at, *obstacle)
		at = -1 // The new plan is performed from its first write.
	}
	return plan.Outcome, failure
}

// perform performs a write, and returns the obstacle that it met. seen is the session as it was last
// seen.
func (s *Sessions) perform(write Write, seen *Stored) *Obstacle {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	var expected *string
	if write.IfUnchanged {
		expected = new(string) // No session has this text.
		if seen != nil {
			expected = &seen.Data
		}
	}
	var now Stored
	var err error
	operation := write.Operation
	switch operation.Case {
	case "create":
		err = s.store.Create(ctx, write.ID, operation.Create)
	case "replace":
		err = s.store.Replace(ctx, write.ID, operation.Replace, expected)
	case "touch":
		err = s.store.Touch(ctx, write.ID, operation.Touch)
	case "delete":
		err = s.store.Delete(ctx, write.ID, expected)
	default:
		if now, err = s.store.Load(ctx, write.ID); err == nil {
			err = &ConflictError{now}
		}
	}
	var conflict *ConflictError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &conflict):
		if !utf8.ValidString(conflict.Now.Data) {
			conflict.Now.Data = "" // This is a damaged session as well, and can be passed on.
		}
		return &Obstacle{Case: "conflict", Conflict: conflict.Now}
	case errors.Is(err, ErrMissing):
		return &Obstacle{Case: "missing"}
	case errors.Is(err, ErrTaken):
		return &Obstacle{Case: "taken"}
	case errors.Is(err, ErrRefused):
		return &Obstacle{Case: "refused", Refused: err.Error()}
	}
	reason := fmt.Sprintf("%s: %v", operation.Case, err)
	log.Print("the store is unavailable: ", reason)
	return &Obstacle{Case: "unavailable", Unavailable: reason}
}
