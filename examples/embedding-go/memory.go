package main

import (
	"context"
	"sync"
	"time"
)

// MemoryStore keeps sessions in memory. They end with the program.
type MemoryStore struct {
	mutex    sync.Mutex
	sessions map[string]Stored
}

// NewMemoryStore returns an empty store.
func NewMemoryStore() *MemoryStore {
	return &MemoryStore{sessions: map[string]Stored{}}
}

// Load implements Store.
func (m *MemoryStore) Load(_ context.Context, id string) (Stored, error) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.find(id, nil)
}

// Create implements Store.
func (m *MemoryStore) Create(_ context.Context, id string, content Content) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if _, err := m.find(id, nil); err == nil {
		return ErrTaken
	}
	m.put(id, content)
	return nil
}

// Replace implements Store.
func (m *MemoryStore) Replace(_ context.Context, id string, content Content, expected *string) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if _, err := m.find(id, expected); err != nil && expected != nil {
		return err
	}
	m.put(id, content)
	return nil
}

// Touch implements Store.
func (m *MemoryStore) Touch(_ context.Context, id string, expires uint64) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	stored, err := m.find(id, nil)
	if err == nil {
		m.put(id, Content{stored.Data, expires})
	}
	return err
}

// Delete implements Store.
func (m *MemoryStore) Delete(_ context.Context, id string, expected *string) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	_, err := m.find(id, expected)
	if err == nil {
		delete(m.sessions, id)
	}
	return err
}

// find returns a session that has not expired, and whose text is the expected one.
func (m *MemoryStore) find(id string, expected *string) (Stored, error) {
	stored, ok := m.sessions[id]
	switch {
	case !ok || isOver(stored):
		return Stored{}, ErrMissing
	case expected != nil && stored.Data != *expected:
		return Stored{}, &ConflictError{stored}
	}
	return stored, nil
}

func (m *MemoryStore) put(id string, content Content) {
	m.sessions[id] = Stored{Data: content.Data, Expires: &content.Expires}
	// Each write looks at two sessions, in Go's random order, so that those that nobody asks for
	// disappear as well.
	looks := 0
	for id, stored := range m.sessions {
		if isOver(stored) {
			delete(m.sessions, id)
		}
		if looks++; looks == 2 {
			break
		}
	}
}

func isOver(stored Stored) bool {
	return stored.Expires != nil && *stored.Expires <= uint64(time.Now().UnixMilli())
}
