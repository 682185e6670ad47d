package main

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// conformance is the application of docs/embedding.md, section Conformance: it performs the operations
// in the header X-Deeds on its session, and responds with the data before them.
func conformance(w http.ResponseWriter, r *http.Request) {
	session := SessionOf(r)
	if session == nil {
		fmt.Fprint(w, `{"data":null}`)
		return
	}
	answer, err := encode(map[string]any{"data": session.Data()})
	var deeds [][]json.RawMessage
	if text := r.Header.Get("X-Deeds"); err == nil && text != "" {
		err = json.Unmarshal([]byte(text), &deeds)
	}
	for _, deed := range deeds {
		if err == nil {
			err = perform(session, deed)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprint(w, answer)
}

func perform(session *Session, deed []json.RawMessage) error {
	var texts [2]string
	for n := range deed {
		if n < len(texts) {
			_ = json.Unmarshal(deed[n], &texts[n]) // The argument of maxAge is no text.
		}
	}
	switch name, key := texts[0], texts[1]; {
	case name == "set" && len(deed) == 3:
		return session.Set(key, deed[2])
	case name == "remove" && len(deed) == 2:
		return session.Remove(key)
	case name == "maxAge" && len(deed) == 2:
		return session.SetCookie("maxAge", deed[1])
	case name == "regenerate":
		return session.Regenerate()
	case name == "renew":
		return session.Renew()
	case name == "destroy":
		return session.Destroy()
	}
	return fmt.Errorf("there is no such deed: %s", deed)
}
