package main

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// conformance performs the actions in the header X-Deeds on the session, and responds with the data
// before them: see docs/embedding.md, section Conformance.
func conformance(w http.ResponseWriter, r *http.Request) {
	var answer struct {
		Data map[string]json.RawMessage `json:"data"`
	}
	session := SessionOf(r)
	if session != nil {
		answer.Data = session.data
	}
	text, err := encode(answer)
	var deeds [][]json.RawMessage
	if header := r.Header.Get("X-Deeds"); err == nil && header != "" {
		err = json.Unmarshal([]byte(header), &deeds)
	}
	for n := 0; n < len(deeds) && err == nil && session != nil; n++ {
		err = perform(session, deeds[n])
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprint(w, text)
}

func perform(session *Session, deed []json.RawMessage) error {
	var words [2]string
	for n := 0; n < len(deed) && n < len(words); n++ {
		_ = json.Unmarshal(deed[n], &words[n]) // a maxAge is no text
	}
	switch name, key := words[0], words[1]; {
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
