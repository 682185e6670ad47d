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

var errReplaced = errors.New("the response was replaced because its session failed")

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

// Data returns the data, which must not be changed.
func (s *Session) Data() map[string]json.RawMessage { return s.data }

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
	return s.apply(func(change *Change) {
		s.data[key] = json.RawMessage(text)
		change.Data.Edits = append(change.Data.Edits, Edit{key, &text})
	})
}

// Remove removes a key.
func (s *Session) Remove(key string) error {
	return s.apply(func(change *Change) {
		delete(s.data, key)
		change.Data.Edits = append(change.Data.Edits, Edit{key, nil})
	})
}

// SetCookie assigns to a setting of the session's cookie: SetCookie("maxAge", 60000).
func (s *Session) SetCookie(setting string, value any) error {
	text, err := encode(value)
	if err != nil {
		return err
	}
	return s.apply(func(change *Change) {
		change.Cookie = append(change.Cookie, Edit{setting, &text})
	})
}

// Renew continues the session under a new identifier, for example after a login.
func (s *Session) Renew() error {
	return s.apply(func(change *Change) {
		if change.Action == "keep" {
			change.Action = "renew"
		}
	})
}

// Regenerate deletes the session, and begins an empty one under a new identifier.
func (s *Session) Regenerate() error {
	return s.apply(func(change *Change) {
		s.data = map[string]json.RawMessage{}
		*change = Change{Action: "regenerate"}
	})
}

// Destroy deletes the session and the browser's cookie: a logout.
func (s *Session) Destroy() error {
	return s.apply(func(change *Change) {
		s.data = map[string]json.RawMessage{}
		*change = Change{Action: "destroy"}
	})
}

func (s *Session) apply(apply func(*Change)) error {
	if s.isSent {
		return ErrSent
	}
	apply(&s.change)
	return nil
}

// encode returns JSON as JavaScript writes it, without escapes for HTML.
func encode(value any) (string, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return strings.TrimSuffix(text.String(), "\n"), err
}

// Middleware gives the requests of a handler their session, and saves it before the response begins.
func (s *Sessions) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun, stored, err := s.begin(facts(r))
		if err != nil {
			refuse(w, err)
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
		if text != nil {
			err = json.Unmarshal([]byte(*text), &session.data)
		}
		if err != nil || session.data == nil {
			refuse(w, &Failure{"misuse", 500, "The session could not be read.", "encoding/json cannot read it"})
			return
		}
		delete(session.data, "cookie") // Its settings are not data.
		answer := &response{w, w.Header().Clone(), s, session, false}
		next.ServeHTTP(answer, r.WithContext(context.WithValue(r.Context(), sessionKey{}, session)))
		if !session.isSent {
			answer.WriteHeader(http.StatusOK)
		}
	})
}

// facts returns what the component has to know of a request.
func facts(r *http.Request) Request {
	path, _, _ := strings.Cut(r.RequestURI, "?") // as received, whatever routers do with r.URL
	if !strings.HasPrefix(path, "/") {
		path = r.URL.EscapedPath()
	}
	isTLS := r.TLS != nil
	request := Request{[]byte(strings.Join(r.Header.Values("Cookie"), "; ")), path, isTLS, isTLS, nil}
	if proto := []byte(r.Header.Get("X-Forwarded-Proto")); len(proto) > 0 {
		request.ForwardedProto = &proto
	}
	return request
}

// response saves the session when the headers are sent.
type response struct {
	http.ResponseWriter
	// before is what the headers were before the application.
	before     http.Header
	sessions   *Sessions
	session    *Session
	isReplaced bool
}

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	isInterim := status >= 100 && status < 200 && status != http.StatusSwitchingProtocols
	switch {
	case w.isReplaced:
		return
	case w.session.isSent || isInterim:
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.session.isSent = true
	change := w.session.change
	change.Data.Case = "nothing"
	if len(change.Data.Edits) > 0 {
		change.Data.Case = "edits"
	}
	outcome, err := w.sessions.finish(w.session.visit, w.session.stored, change)
	headers := w.Header()
	if err != nil {
		for name := range headers {
			delete(headers, name)
		}
		for name, values := range w.before {
			headers[name] = values
		}
		refuse(w.ResponseWriter, err)
		w.isReplaced = true
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
	if w.isReplaced {
		return 0, errReplaced
	}
	return w.ResponseWriter.Write(body)
}

// Flush implements http.Flusher.
func (w *response) Flush() {
	if !w.session.isSent {
		w.WriteHeader(http.StatusOK)
	}
	if flusher, ok := w.ResponseWriter.(http.Flusher); ok {
		flusher.Flush()
	}
}

// refuse answers a request whose session failed.
func refuse(w http.ResponseWriter, err error) {
	log.Print("a request failed: ", err)
	status, message := http.StatusInternalServerError, "The session failed."
	var failure *Failure
	if errors.As(err, &failure) {
		status, message = int(failure.Status), failure.Message
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, message, status)
}

// keepPrivate keeps a response with a cookie out of caches.
func keepPrivate(headers http.Header) {
	headers.Set("Cache-Control", "no-store")
	for name := range headers {
		// These override Cache-Control (RFC 9213).
		if strings.HasSuffix(name, "-Cache-Control") || name == "Surrogate-Control" {
			headers.Set(name, "no-store")
		}
	}
	for _, name := range strings.Split(strings.Join(headers.Values("Vary"), ","), ",") {
		if name = strings.TrimSpace(name); name == "*" || strings.EqualFold(name, "Cookie") {
			return
		}
	}
	headers.Add("Vary", "Cookie")
}
