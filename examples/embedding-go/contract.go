package main

// The types of wit/engine.wit, in its order of fields. An option is a pointer. A variant is a struct
// with the name of its case, and a field for each case with a payload.

// Setting is an option and its value.
type Setting struct {
	Name  string
	Value Value
}

// Value is the value of an option: `json`, `text` as in an environment variable, or `bytes`, which
// is one secret.
type Value struct {
	Case       string
	JSON, Text string
	Bytes      []byte
}

// Problem says what is wrong with an option, without its value if that is a secret.
type Problem struct{ Name, Message string }

// Request has the properties of a request that affect its session.
type Request struct {
	Cookies        []byte
	Path           string
	TLS, Secure    bool
	ForwardedProto *[]byte
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

// Loaded is what the store has loaded, `ok`, or the reason why it is unavailable, `err`.
type Loaded struct {
	Case string
	Ok   *Stored
	Err  string
}

// Beginning says how a request begins: `load`, `ready`, or `none` if the path has no session.
type Beginning struct {
	Case  string
	Load  Visit
	Ready Ready
}

// State is opaque, and must not leave this program.
type State struct {
	Bits uint64
	Text *string
}

// Visit is one request, as the component knows it. Its ID is a secret.
type Visit struct {
	ID    string
	State State
}

// Ready is the session at the beginning of a request (`session` in the contract). Without a Text,
// its text is the one that was loaded.
type Ready struct {
	Visit  Visit
	Origin Enum
	Text   *string
}

// Change is what the application did: an Action on the whole session, changes of its data, and
// assignments to the settings of its cookie.
type Change struct {
	Action Enum
	Data   DataChange
	Cookie []Edit
}

// DataChange is `nothing`, `edits` of single keys in their order, or the `whole` object.
type DataChange struct {
	Case  string
	Edits []Edit
	Whole string
}

// Edit is a key and its new value as JSON, or nil, which removes it.
type Edit struct {
	Key   string
	Value *string
}

// Plan has the writes to perform, and the result that they earn.
type Plan struct {
	Visit   Visit
	Writes  []Write
	Outcome Outcome
}

// Write is one operation on the store.
type Write struct {
	ID          string
	Operation   Operation
	IfUnchanged bool
}

// Operation is `create`, `replace`, `touch`, `delete` or `load`.
type Operation struct {
	Case            string
	Create, Replace Content
	Touch           uint64
}

// Obstacle says why a write was not performed: `missing`, `taken`, `conflict`, `refused` or
// `unavailable`.
type Obstacle struct {
	Case                 string
	Conflict             Stored
	Refused, Unavailable string
}

// Outcome is the result of a request.
type Outcome struct {
	Event            Enum
	NewID, SetCookie *string
	NoStore          bool
}

// Failure is why a request fails: the status and the text of the response, and a reason for the log.
type Failure struct {
	Kind            Enum
	Status          uint16
	Message, Reason string
}

// Error returns the kind and the reason.
func (f *Failure) Error() string { return string(f.Kind) + ": " + f.Reason }
