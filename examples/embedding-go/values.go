package main

// #include <stdlib.h>
// #include "wasmtime.h"
import "C"

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"unicode"
	"unsafe"
)

// Enum is the name of a case of an enum.
type Enum string

type (
	val   = C.wasmtime_component_val_t
	entry = C.wasmtime_component_valrecord_entry_t
)

// kindOf returns the kind of value that a type of contract.go is.
func kindOf(t reflect.Type) C.uint8_t {
	switch t.Kind() {
	case reflect.Bool:
		return C.WASMTIME_COMPONENT_BOOL
	case reflect.Uint8:
		return C.WASMTIME_COMPONENT_U8
	case reflect.Uint16:
		return C.WASMTIME_COMPONENT_U16
	case reflect.Uint32:
		return C.WASMTIME_COMPONENT_U32
	case reflect.Uint64:
		return C.WASMTIME_COMPONENT_U64
	case reflect.Slice:
		return C.WASMTIME_COMPONENT_LIST
	case reflect.Pointer:
		return C.WASMTIME_COMPONENT_OPTION
	case reflect.String:
		if t == reflect.TypeOf(Enum("")) {
			return C.WASMTIME_COMPONENT_ENUM
		}
		return C.WASMTIME_COMPONENT_STRING
	}
	switch names := namesOf(t); {
	case names[0] != "case":
		return C.WASMTIME_COMPONENT_RECORD
	case names[1] == "ok":
		return C.WASMTIME_COMPONENT_RESULT
	}
	return C.WASMTIME_COMPONENT_VARIANT
}

var names sync.Map

// namesOf returns the contract's names of a struct's fields: `if-unchanged` for IfUnchanged.
func namesOf(t reflect.Type) []string {
	if known, ok := names.Load(t); ok {
		return known.([]string)
	}
	all := make([]string, t.NumField())
	for n := range all {
		var name strings.Builder
		wasLower := false
		for _, c := range t.Field(n).Name {
			if wasLower && unicode.IsUpper(c) {
				name.WriteByte('-')
			}
			wasLower = unicode.IsLower(c)
			name.WriteRune(unicode.ToLower(c))
		}
		all[n] = name.String()
	}
	names.Store(t, all)
	return all
}

// payloadOf returns the field for the payload of a case, if it has one.
func payloadOf(v reflect.Value, name string) (reflect.Value, bool) {
	for n, known := range namesOf(v.Type()) {
		if known == name && n > 0 {
			return v.Field(n), true
		}
	}
	return reflect.Value{}, false
}

// arena is C memory for the values of one call, which is freed as a whole.
type arena struct {
	blocks []unsafe.Pointer
	next   unsafe.Pointer
	left   uintptr
}

func (a *arena) free() {
	for _, block := range a.blocks {
		C.free(block)
	}
}

func (a *arena) alloc(size uintptr) unsafe.Pointer {
	size = (size + 7) &^ 7
	if size > a.left || a.next == nil {
		a.left = size + 4096
		a.next = C.malloc(C.size_t(a.left))
		a.blocks = append(a.blocks, a.next)
	}
	at := a.next
	a.next, a.left = unsafe.Add(at, size), a.left-size
	return at
}

// vals returns the place for some values.
func (a *arena) vals(count int) []val {
	vals := unsafe.Slice((*val)(a.alloc(uintptr(count)*unsafe.Sizeof(val{}))), count)
	for n := range vals {
		vals[n] = val{}
	}
	return vals
}

// text copies a text. wasmtime aborts the process if it is not UTF-8, so it is made UTF-8.
func (a *arena) text(s string) (C.size_t, unsafe.Pointer) {
	s = strings.ToValidUTF8(s, "\uFFFD")
	at := a.alloc(uintptr(len(s)))
	copy(unsafe.Slice((*byte)(at), len(s)), s)
	return C.size_t(len(s)), at
}

// box copies a Go value to a place of its own.
func (a *arena) box(from reflect.Value) unsafe.Pointer {
	to := &a.vals(1)[0]
	a.put(to, from)
	return unsafe.Pointer(to)
}

// put copies a Go value of the contract to its place.
func (a *arena) put(to *val, from reflect.Value) {
	to.kind = kindOf(from.Type())
	switch to.kind {
	case C.WASMTIME_COMPONENT_BOOL:
		if from.Bool() {
			to.word = 1
		}
	case C.WASMTIME_COMPONENT_STRING, C.WASMTIME_COMPONENT_ENUM:
		to.word, to.first = a.text(from.String())
	case C.WASMTIME_COMPONENT_LIST:
		vals := a.vals(from.Len())
		for n := range vals {
			a.put(&vals[n], from.Index(n))
			to.word, to.first = C.size_t(len(vals)), unsafe.Pointer(&vals[0])
		}
	case C.WASMTIME_COMPONENT_RECORD:
		names := namesOf(from.Type())
		to.word, to.first = C.size_t(len(names)), a.alloc(uintptr(len(names))*unsafe.Sizeof(entry{}))
		entries := unsafe.Slice((*entry)(to.first), len(names))
		for n, name := range names {
			size, data := a.text(name)
			entries[n] = entry{name: C.wasm_byte_vec_t{size: size, data: (*C.char)(data)}}
			a.put(&entries[n].val, from.Field(n))
		}
	case C.WASMTIME_COMPONENT_OPTION:
		if !from.IsNil() {
			to.word = C.size_t(uintptr(a.box(from.Elem())))
		}
	case C.WASMTIME_COMPONENT_VARIANT:
		name := from.Field(0).String()
		to.word, to.first = a.text(name)
		if payload, ok := payloadOf(from, name); ok {
			to.second = a.box(payload)
		}
	case C.WASMTIME_COMPONENT_RESULT:
		name := from.Field(0).String()
		if name == "ok" {
			to.word = 1
		}
		if payload, ok := payloadOf(from, name); ok {
			to.first = a.box(payload)
		}
	default:
		to.word = C.size_t(from.Uint())
	}
}

// take copies a value of the component to a Go value.
func take(to reflect.Value, from *val) error {
	if from == nil || from.kind != kindOf(to.Type()) {
		return fmt.Errorf("it returned a value that is no %s", to.Type())
	}
	switch from.kind {
	case C.WASMTIME_COMPONENT_BOOL:
		to.SetBool(byte(from.word) != 0)
	case C.WASMTIME_COMPONENT_STRING, C.WASMTIME_COMPONENT_ENUM:
		to.SetString(string(elements[byte](from)))
	case C.WASMTIME_COMPONENT_LIST:
		vals := elements[val](from)
		to.Set(reflect.MakeSlice(to.Type(), len(vals), len(vals)))
		for n := range vals {
			if err := take(to.Index(n), &vals[n]); err != nil {
				return err
			}
		}
	case C.WASMTIME_COMPONENT_RECORD:
		entries := elements[entry](from)
		if len(entries) != to.NumField() {
			return fmt.Errorf("it returned a record that is no %s", to.Type())
		}
		for n := range entries {
			if err := take(to.Field(n), &entries[n].val); err != nil {
				return err
			}
		}
	case C.WASMTIME_COMPONENT_OPTION:
		if some := *(**val)(unsafe.Pointer(&from.word)); some != nil {
			to.Set(reflect.New(to.Type().Elem()))
			return take(to.Elem(), some)
		}
	case C.WASMTIME_COMPONENT_VARIANT:
		return takeCase(to, string(elements[byte](from)), from.second)
	case C.WASMTIME_COMPONENT_RESULT:
		if byte(from.word) != 0 {
			return takeCase(to, "ok", from.first)
		}
		return takeCase(to, "err", from.first)
	default:
		to.SetUint(uint64(from.word))
	}
	return nil
}

func takeCase(to reflect.Value, name string, payload unsafe.Pointer) error {
	to.Field(0).SetString(name)
	if field, ok := payloadOf(to, name); ok {
		return take(field, (*val)(payload))
	}
	return nil
}

// elements returns what a text, a list or a record consists of. The address of an empty one must not
// be read: it may be one that Go takes for a damaged pointer.
func elements[T any](from *val) []T {
	if from.word == 0 {
		return nil
	}
	return unsafe.Slice((*T)(from.first), int(from.word))
}
