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

// ErrSent says that a change of the session came too late.
var ErrSent = errors.New("the session cannot be changed after the response has begun")

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

// Get decodes the value of a key. If there is none, the target stays as it is.
func (s *Session) Get(key string, target any) error {
	if value, ok := s.data[key]; ok {
		return json.Unmarshal(value, target)
	}
	return nil
}

// Set sets a key to a value that encoding/json can encode.
func (s *Session) Set(key string, value any) error {
	text, err := encode(value)
	if err != nil {
		return err
	}
	s.data[key] = json.RawMessage(text)
	return s.apply(func(c *Change) { c.Data.Edits = append(c.Data.Edits, Edit{key, &text}) })
}

// Remove removes a key.
func (s *Session) Remove(key string) error {
	delete(s.data, key)
	return s.apply(func(c *Change) { c.Data.Edits = append(c.Data.Edits, Edit{key, nil}) })
}

// SetCookie assigns to a setting of the session's cookie: SetCookie("maxAge", 60000).
func (s *Session) SetCookie(setting string, value any) error {
	text, err := encode(value)
	if err != nil {
		return err
	}
	return s.apply(func(c *Change) { c.Cookie = append(c.Cookie, Edit{setting, &text}) })
}

// Renew continues the session under a new identifier: call it after a login.
func (s *Session) Renew() error {
	return s.apply(func(c *Change) {
		if c.Action == "keep" {
			c.Action = "renew"
		}
	})
}

// Regenerate deletes the session, and begins an empty one under a new identifier.
func (s *Session) Regenerate() error {
	s.data = map[string]json.RawMessage{}
	return s.apply(func(c *Change) { *c = Change{Action: "regenerate"} })
}

// Destroy deletes the session and the browser's cookie: call it at a logout.
func (s *Session) Destroy() error {
	s.data = map[string]json.RawMessage{}
	return s.apply(func(c *Change) { *c = Change{Action: "destroy"} })
}

func (s *Session) apply(change func(*Change)) error {
	if s.isSent {
		return ErrSent
	}
	change(&s.change)
	return nil
}

// encode returns a value as JSON, without the escapes that only HTML needs.
func encode(value any) (string, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return strings.TrimSuffix(text.String(), "\n"), err
}

// Middleware gives each request its session, and saves it before the response is sent.
func (s *Sessions) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun, stored, failure := s.begin(factsOf(r))
		if failure != nil {
			refuse(w, failure)
			return
		}
		if begun.Case != "ready" {
			next.ServeHTTP(w, r)
			return
		}
		session := &Session{visit: begun.Ready.Visit, stored: stored, change: Change{Action: "keep"}}
		text := begun.Ready.Text
		if text == nil && stored != nil {
			text = &stored.Data
		}
		if text == nil {
			text = new(string)
		}
		if err := json.Unmarshal([]byte(*text), &session.data); err != nil {
			const message = "The session could not be read."
			refuse(w, &Failure{"unavailable", http.StatusInternalServerError, message, err.Error()})
			return
		}
		delete(session.data, "cookie") // Its settings are no data.
		answer := &response{w, s, session, w.Header().Clone(), false}
		next.ServeHTTP(answer, r.WithContext(context.WithValue(r.Context(), sessionKey{}, session)))
		if !session.isSent {
			answer.WriteHeader(http.StatusOK)
		}
	})
}

// factsOf returns what the component has to know of a request.
func factsOf(r *http.Request) Request {
	// As it was received: routers change r.URL.
	path, _, _ := strings.Cut(r.RequestURI, "?")
	if !strings.HasPrefix(path, "/") {
		path = r.URL.EscapedPath()
	}
	isTLS := r.TLS != nil
	facts := Request{[]byte(strings.Join(r.Header["Cookie"], "; ")), path, isTLS, isTLS, nil}
	if proto := []byte(r.Header.Get("X-Forwarded-Proto")); len(proto) > 0 {
		facts.ForwardedProto = &proto
	}
	return facts
}

// response saves the session when its headers are sent.
type response struct {
	http.ResponseWriter
	sessions *Sessions
	session  *Session
	// before has the headers from before the application.
	before    http.Header
	isRefused bool
}

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	isInterim := status >= 100 && status < 200 && status != http.StatusSwitchingProtocols
	if w.session.isSent || isInterim {
		if !w.isRefused {
			w.ResponseWriter.WriteHeader(status)
		}
		return
	}
	w.session.isSent = true
	change := w.session.change
	change.Data.Case = "nothing"
	if len(change.Data.Edits) > 0 {
		change.Data.Case = "edits"
	}
	outcome, failure := w.sessions.finish(w.session.visit, w.session.stored, change)
	headers := w.Header()
	if failure != nil {
		w.isRefused = true
		for name := range headers {
			delete(headers, name)
		}
		for name, values := range w.before {
			headers[name] = values
		}
		refuse(w.ResponseWriter, failure)
		return
	}
	if outcome.SetCookie != nil {
		headers.Add("Set-Cookie", *outcome.SetCookie)
	}
	if outcome.NoStore {
		keepPrivate(headers)
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *response) Write(body []byte) (int, error) {
	if !w.session.isSent {
		w.WriteHeader(http.StatusOK)
	}
	if w.isRefused {
		return 0, errors.New("the response was replaced, because its session failed")
	}
	return w.ResponseWriter.Write(body)
}

// refuse sends the response to a request that fails.
func refuse(w http.ResponseWriter, failure *Failure) {
	log.Print("a request failed: ", failure)
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, failure.Message, int(failure.Status))
}

// keepPrivate keeps a response with a session's cookie out of shared caches.
func keepPrivate(headers http.Header) {
	headers.Set("Cache-Control", "no-store")
	for name := range headers {
		// These replace Cache-Control in some caches (RFC 9213).
		if strings.HasSuffix(name, "-Cache-Control") || name == "Surrogate-Control" {
			headers.Set(name, "no-store")
		}
	}
	for _, name := range strings.Split(strings.Join(headers["Vary"], ","), ",") {
		if name = strings.TrimSpace(name); name == "*" || strings.EqualFold(name, "Cookie") {
			return
		}
	}
	headers.Add("Vary", "Cookie")
}
