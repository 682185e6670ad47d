package main

// #include "wasmtime.h"
// // Go must not write pointers to memory that is not initialized.
// static void set_kind(wasmtime_component_val_t *to, uint8_t kind) {
// 	*to = (wasmtime_component_val_t){.kind = kind};
// }
// static void set_text(wasm_byte_vec_t *to, _GoString_ text) {
// 	wasm_byte_vec_new(to, _GoStringLen(text), _GoStringPtr(text));
// }
import "C"

import (
	"errors"
	"reflect"
	"strings"
	"unsafe"
)

type (
	// val is a value of the component. It is always in C memory: Go takes the address of an empty text
	// or list, which may be any number, for a damaged pointer.
	val   = C.wasmtime_component_val_t
	entry = C.wasmtime_component_valrecord_entry_t
)

var kinds = map[reflect.Kind]C.uint8_t{
	reflect.Bool:    C.WASMTIME_COMPONENT_BOOL,
	reflect.Uint8:   C.WASMTIME_COMPONENT_U8,
	reflect.Uint16:  C.WASMTIME_COMPONENT_U16,
	reflect.Uint32:  C.WASMTIME_COMPONENT_U32,
	reflect.Uint64:  C.WASMTIME_COMPONENT_U64,
	reflect.String:  C.WASMTIME_COMPONENT_STRING,
	reflect.Slice:   C.WASMTIME_COMPONENT_LIST,
	reflect.Pointer: C.WASMTIME_COMPONENT_OPTION,
}

func kindOf(t reflect.Type) C.uint8_t {
	switch {
	case t == reflect.TypeOf(Enum("")):
		return C.WASMTIME_COMPONENT_ENUM
	case t.Kind() != reflect.Struct:
		return kinds[t.Kind()]
	case t.Field(0).Name != "Case":
		return C.WASMTIME_COMPONENT_RECORD
	case t.Field(1).Name == "Ok":
		return C.WASMTIME_COMPONENT_RESULT
	}
	return C.WASMTIME_COMPONENT_VARIANT
}

// payloadOf returns the field for the payload of a case. It is not valid if there is none.
func payloadOf(v reflect.Value, name string) reflect.Value {
	return v.FieldByNameFunc(func(field string) bool { return strings.EqualFold(field, name) })
}

// put copies a Go value to an empty value.
func put(to *val, from reflect.Value) {
	C.set_kind(to, kindOf(from.Type()))
	switch to.kind {
	case C.WASMTIME_COMPONENT_BOOL:
		if from.Bool() {
			to.word = 1
		}
	case C.WASMTIME_COMPONENT_STRING, C.WASMTIME_COMPONENT_ENUM:
		// wasmtime aborts the process if a text is not UTF-8.
		C.set_text((*C.wasm_byte_vec_t)(words(to)), strings.ToValidUTF8(from.String(), "\uFFFD"))
	case C.WASMTIME_COMPONENT_LIST:
		C.wasmtime_component_vallist_new_uninit((*C.wasmtime_component_vallist_t)(words(to)), C.size_t(from.Len()))
		for n, vals := 0, elements[val](to); n < len(vals); n++ {
			put(&vals[n], from.Index(n))
		}
	case C.WASMTIME_COMPONENT_RECORD:
		C.wasmtime_component_valrecord_new_uninit((*C.wasmtime_component_valrecord_t)(words(to)), C.size_t(from.NumField()))
		for n, entries := 0, elements[entry](to); n < len(entries); n++ {
			field := from.Type().Field(n)
			name := field.Tag.Get("wit")
			if name == "" {
				name = strings.ToLower(field.Name)
			}
			C.set_text(&entries[n].name, name)
			put(&entries[n].val, from.Field(n))
		}
	case C.WASMTIME_COMPONENT_OPTION:
		if !from.IsNil() {
			*(**val)(words(to)) = box(from.Elem())
		}
	case C.WASMTIME_COMPONENT_VARIANT:
		name := from.Field(0).String()
		C.set_text((*C.wasm_byte_vec_t)(words(to)), name)
		to.second = unsafe.Pointer(box(payloadOf(from, name)))
	case C.WASMTIME_COMPONENT_RESULT:
		name := from.Field(0).String()
		if name == "ok" {
			to.word = 1
		}
		to.first = unsafe.Pointer(box(payloadOf(from, name)))
	default:
		to.word = C.size_t(from.Uint())
	}
}

// box copies a Go value to a place of its own, if there is a value.
func box(from reflect.Value) *val {
	if !from.IsValid() {
		return nil
	}
	var empty val
	to := C.wasmtime_component_val_new(&empty)
	put(to, from)
	return to
}

// take copies a value to a Go value.
func take(to reflect.Value, from *val) (err error) {
	if from == nil || from.kind != kindOf(to.Type()) {
		return errors.New("it returned a value that is no " + to.Type().String())
	}
	switch from.kind {
	case C.WASMTIME_COMPONENT_BOOL:
		to.SetBool(byte(from.word) != 0)
	case C.WASMTIME_COMPONENT_STRING, C.WASMTIME_COMPONENT_ENUM:
		to.SetString(string(elements[byte](from)))
	case C.WASMTIME_COMPONENT_LIST:
		vals := elements[val](from)
		to.Set(reflect.MakeSlice(to.Type(), len(vals), len(vals)))
		for n := 0; n < len(vals) && err == nil; n++ {
			err = take(to.Index(n), &vals[n])
		}
	case C.WASMTIME_COMPONENT_RECORD:
		entries := elements[entry](from)
		if len(entries) != to.NumField() {
			return errors.New("it returned another record than " + to.Type().String())
		}
		for n := 0; n < len(entries) && err == nil; n++ {
			err = take(to.Field(n), &entries[n].val)
		}
	case C.WASMTIME_COMPONENT_OPTION:
		if some := *(**val)(words(from)); some != nil {
			to.Set(reflect.New(to.Type().Elem()))
			err = take(to.Elem(), some)
		}
	case C.WASMTIME_COMPONENT_VARIANT:
		err = takeCase(to, string(elements[byte](from)), from.second)
	case C.WASMTIME_COMPONENT_RESULT:
		name := "err"
		if byte(from.word) != 0 {
			name = "ok"
		}
		err = takeCase(to, name, from.first)
	default:
		to.SetUint(uint64(from.word))
	}
	return err
}

func takeCase(to reflect.Value, name string, payload unsafe.Pointer) error {
	to.Field(0).SetString(name)
	if field := payloadOf(to, name); field.IsValid() {
		return take(field, (*val)(payload))
	}
	return nil
}

// words returns the place of the words of a value.
func words(v *val) unsafe.Pointer { return unsafe.Pointer(&v.word) }

// elements returns what a text, a list or a record consists of.
func elements[T any](v *val) []T {
	if v.word == 0 {
		return nil
	}
	return unsafe.Slice((*T)(v.first), int(v.word))
}
