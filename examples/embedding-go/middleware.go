package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log"
	"net/http"
	"strings"
)

// ErrSent says that the response has begun: the session can no longer be changed.
var ErrSent = errors.New("the session cannot be changed after the response has begun")

var errReplaced = errors.New("the response was replaced, because the session could not be saved")

// Session is the session of one request. It must not be used concurrently.
type Session struct {
	visit  Visit
	stored *Stored
	data   map[string]json.RawMessage
	change Change
	isSent bool
}

type sessionKey struct{}

// SessionOf returns the session of a request, or nil if its path has none.
func SessionOf(r *http.Request) *Session {
	session, _ := r.Context().Value(sessionKey{}).(*Session)
	return session
}

// newSession reads the text of a session. A member `cookie` is not data.
func newSession(ready Ready, stored *Stored) (*Session, error) {
	s := &Session{visit: ready.Visit, stored: stored, change: Change{Action: "keep"}}
	text := ready.Text
	if text == nil && stored != nil {
		text = &stored.Data
	}
	if text == nil {
		return s, errors.New("the component returned no text")
	}
	err := json.Unmarshal([]byte(*text), &s.data)
	delete(s.data, "cookie")
	return s, err
}

// Data returns all data.
func (s *Session) Data() map[string]json.RawMessage { return s.data }

// Get decodes the value of a key. It leaves the target unchanged if there is none.
func (s *Session) Get(key string, target any) error {
	if value, ok := s.data[key]; ok {
		return json.Unmarshal(value, target)
	}
	return nil
}

// Set sets a key to a value that encoding/json can encode.
func (s *Session) Set(key string, value any) error {
	text, err := encode(value)
	if err != nil || s.isSent {
		return firstOf(err, ErrSent)
	}
	s.data[key] = json.RawMessage(text)
	s.change.Data = DataChange{Case: "edits", Edits: append(s.change.Data.Edits, Edit{key, &text})}
	return nil
}

// Remove removes a key.
func (s *Session) Remove(key string) error {
	if s.isSent {
		return ErrSent
	}
	delete(s.data, key)
	s.change.Data = DataChange{Case: "edits", Edits: append(s.change.Data.Edits, Edit{key, nil})}
	return nil
}

// SetCookie sets a setting of the session's cookie: SetCookie("maxAge", 60000).
func (s *Session) SetCookie(setting string, value any) error {
	text, err := encode(value)
	if err != nil || s.isSent {
		return firstOf(err, ErrSent)
	}
	s.change.Cookie = append(s.change.Cookie, Edit{setting, &text})
	return nil
}

// Renew continues the session under a new identifier. Call it after a login.
func (s *Session) Renew() error {
	if s.isSent {
		return ErrSent
	}
	if s.change.Action == "keep" {
		s.change.Action = "renew"
	}
	return nil
}

// Regenerate deletes the session, and begins an empty one under a new identifier.
func (s *Session) Regenerate() error { return s.end("regenerate") }

// Destroy deletes the session and the browser's cookie. It is a logout.
func (s *Session) Destroy() error { return s.end("destroy") }

func (s *Session) end(action Enum) error {
	if s.isSent {
		return ErrSent
	}
	s.data = map[string]json.RawMessage{}
	s.change = Change{Action: action}
	return nil
}
