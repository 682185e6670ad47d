package main

// The types of wit/engine.wit, with its order of fields; see there for their meaning. An option is a
// pointer. A variant or a result is a struct with the name of its case, and a field for the payload of
// each case that has one. A tag is the contract's name of a field, if it is not the Go name in lower
// case. values.go converts them.

// Enum is the name of a case of an enum.
type Enum string

// Setting is an option and its value.
type Setting struct {
	Name  string
	Value Value
}

// Value is the value of an option: json, text or bytes.
type Value struct {
	Case       string
	JSON, Text string
	Bytes      []byte
}

// Problem says what is wrong with an option. It contains no secret.
type Problem struct{ Name, Message string }

// Request has what the component has to know of a request.
type Request struct {
	Cookies        []byte
	Path           string
	TLS, Secure    bool
	ForwardedProto *[]byte `wit:"forwarded-proto"`
}

// Stored is a stored session. Times are milliseconds since the Unix epoch.
type Stored struct {
	Data             string
	Expires, Touched *uint64
}

// Content is a session to store.
type Content struct {
	Data    string
	Expires uint64
}

// Loaded is what the store has loaded (ok), or why it is unavailable (err).
type Loaded struct {
	Case string
	Ok   *Stored
	Err  string
}

// State is opaque. It must not leave this program, not even for a log.
type State struct {
	Bits uint64
	Text *string
}

// Visit is one request. Its ID is a secret.
type Visit struct {
	ID    string
	State State
}

// Ready is the contract's session: Text is nil if it is the text that was loaded.
type Ready struct {
	Visit  Visit
	Origin Enum
	Text   *string
}

// Beginning is how a request begins: load, ready or none.
type Beginning struct {
	Case  string
	Load  Visit
	Ready Ready
}

// Edit is a key and its new value as JSON text. No value removes the key.
type Edit struct {
	Key   string
	Value *string
}

// DataChange is how the data is changed: nothing, edits or whole.
type DataChange struct {
	Case  string
	Edits []Edit
	Whole string
}

// Change is what the application did with its session.
type Change struct {
	Action Enum
	Data   DataChange
	Cookie []Edit
}

// Operation is an operation on the store: create, replace, touch, delete or load.
type Operation struct {
	Case            string
	Create, Replace Content
	Touch           uint64
}

// Write is one operation of a plan.
type Write struct {
	ID          string
	Operation   Operation
	IfUnchanged bool `wit:"if-unchanged"`
}

// Obstacle is why a write was not performed: missing, taken, conflict, refused or unavailable.
type Obstacle struct {
	Case                 string
	Conflict             Stored
	Refused, Unavailable string
}

// Outcome is the result of a request.
type Outcome struct {
	Event     Enum
	NewID     *string `wit:"new-id"`
	SetCookie *string `wit:"set-cookie"`
	NoStore   bool    `wit:"no-store"`
}

// Plan is what to store, and the outcome that it earns.
type Plan struct {
	Visit   Visit
	Writes  []Write
	Outcome Outcome
}

// Failure is why a request fails, with the status and the text of its response.
type Failure struct {
	Kind            Enum
	Status          uint16
	Message, Reason string
}

// Error returns what is for the log.
func (f *Failure) Error() string { return string(f.Kind) + ": " + f.Reason }
