package main

// #include "wasmtime.h"
// static wasmtime_component_export_index_t *find(const wasmtime_component_t *component,
// 	const wasmtime_component_export_index_t *parent, _GoString_ name) {
// 	return wasmtime_component_get_export_index(component, parent, _GoStringPtr(name), _GoStringLen(name));
// }
import "C"

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"unsafe"
)

const (
	contract = "edge:session/engine@"
	version  = "0.2.0"

	// maxMemory limits the memory of an instance, which holds a session several times.
	maxMemory = 128 << 20

	// fuel limits the instructions of a call, to about half a second. A call takes tens of thousands,
	// or tens of millions with a session of 1 MiB.
	fuel = 2_000_000_000
)

// Engine is the component with its options. Concurrent calls take turns.
type Engine struct {
	engine    *C.wasm_engine_t
	linker    *C.wasmtime_component_linker_t
	component *C.wasmtime_component_t
	settings  []Setting

	mutex sync.Mutex
	// instance is nil after a trap.
	instance *instance
}

// instance is an instance of the component, in a store of wasmtime.
type instance struct {
	store     *C.wasmtime_store_t
	functions map[string]C.wasmtime_component_func_t
}

// result is what the functions of the contract return.
type result[T, E any] struct {
	Case string
	Ok   T
	Err  E
}

// Open compiles the component and configures it. Its error names all problems of the options.
func Open(wasm []byte, settings []Setting) (*Engine, error) {
	if !bytes.HasPrefix(wasm, []byte("\x00asm")) {
		// wasmtime would read a text format, and quote the file in its error.
		return nil, errors.New("this is no WebAssembly component")
	}
	config := C.wasm_config_new()
	C.wasmtime_config_consume_fuel_set(config, true)
	e := &Engine{engine: C.wasm_engine_new_with_config(config), settings: settings}
	e.linker = C.wasmtime_component_linker_new(e.engine)
	err := check(C.wasmtime_component_linker_add_wasip2(e.linker))
	if err == nil {
		err = check(C.wasmtime_component_new(e.engine, (*C.uint8_t)(&wasm[0]), C.size_t(len(wasm)), &e.component))
	}
	if err == nil {
		e.instance, err = e.instantiate()
	}
	if err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// Close frees the component. The engine must not be used afterwards.
func (e *Engine) Close() {
	if e.instance != nil {
		C.wasmtime_store_delete(e.instance.store)
	}
	if e.component != nil {
		C.wasmtime_component_delete(e.component)
	}
	C.wasmtime_component_linker_delete(e.linker)
	C.wasm_engine_delete(e.engine)
}

// Begin begins a request.
func (e *Engine) Begin(request Request) (Beginning, *Failure) {
	return call[Beginning](e, "begin", request)
}

// Loaded continues with what the store has loaded.
func (e *Engine) Loaded(visit Visit, loaded Loaded) (Beginning, *Failure) {
	return call[Beginning](e, "loaded", visit, loaded)
}

// Finish decides what to store. stored is what was loaded last.
func (e *Engine) Finish(visit Visit, stored *Stored, change Change) (Plan, *Failure) {
	return call[Plan](e, "finish", visit, stored, change)
}

// Resume decides again, after the write with the index at has met an obstacle.
func (e *Engine) Resume(visit Visit, stored *Stored, change Change, at int, obstacle Obstacle) (Plan, *Failure) {
	return call[Plan](e, "resume", visit, stored, change, uint32(at), obstacle)
}

// call calls a function for a request.
func call[T any](e *Engine, name string, args ...any) (T, *Failure) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	var answer result[T, Failure]
	var err error
	if e.instance == nil {
		e.instance, err = e.instantiate()
	}
	if err == nil {
		if err = e.instance.call(name, &answer, args); err != nil {
			// After a trap, the instance may be inconsistent.
			C.wasmtime_store_delete(e.instance.store)
			e.instance = nil
		}
	}
	switch {
	case err != nil:
		// The last line has the cause. Those above it name functions.
		lines := strings.Split(err.Error(), "\n")
		return answer.Ok, &Failure{"unavailable", http.StatusServiceUnavailable,
			"Sessions are unavailable. Please try again.",
			"the component failed: " + strings.TrimSpace(lines[len(lines)-1])}
	case answer.Case != "ok":
		return answer.Ok, &answer.Err
	}
	return answer.Ok, nil
}

// instantiate returns a new instance with the options.
func (e *Engine) instantiate() (*instance, error) {
	i := &instance{C.wasmtime_store_new(e.engine, nil, nil), map[string]C.wasmtime_component_func_t{}}
	err := i.link(e)
	var configured result[[]Setting, []Problem]
	if err == nil {
		err = i.call("configure", &configured, []any{e.settings})
	}
	if err == nil && configured.Case != "ok" {
		text := "the options cannot be used:"
		for _, problem := range configured.Err {
			text += "\n  " + problem.Name + ": " + problem.Message
		}
		err = errors.New(text)
	}
	if err != nil {
		C.wasmtime_store_delete(i.store)
		return nil, err
	}
	return i, nil
}

// link instantiates the component with a clock and random numbers. Nothing else of WASI is configured:
// there are no files, no environment and no network.
func (i *instance) link(e *Engine) error {
	engine := C.find(e.component, nil, contract+version)
	if engine == nil {
		return e.otherVersion()
	}
	defer C.wasmtime_component_export_index_delete(engine)
	context := C.wasmtime_store_context(i.store)
	C.wasmtime_store_limiter(i.store, maxMemory, -1, -1, -1, -1)
	if err := check(C.wasmtime_context_set_wasi(context, C.wasi_config_new())); err != nil {
		return err
	}
	if err := check(C.wasmtime_context_set_fuel(context, fuel)); err != nil {
		return err
	}
	var made C.wasmtime_component_instance_t
	if err := check(C.wasmtime_component_linker_instantiate(e.linker, context, e.component, &made)); err != nil {
		return err
	}
	for _, name := range []string{"configure", "begin", "loaded", "finish", "resume"} {
		var function C.wasmtime_component_func_t
		index := C.find(e.component, engine, name)
		if index == nil || !C.wasmtime_component_instance_get_func(&made, context, index, &function) {
			return errors.New("the component has no function " + name)
		}
		C.wasmtime_component_export_index_delete(index)
		i.functions[name] = function
	}
	return nil
}

// otherVersion returns why a component cannot be used that does not export the contract's version.
func (e *Engine) otherVersion() error {
	exports := C.wasmtime_component_type(e.component)
	defer C.wasmtime_component_type_delete(exports)
	var name *C.char
	var size C.size_t
	var item *C.wasmtime_component_extern_t
	for n := C.size_t(0); C.wasmtime_component_type_export_nth(exports, e.engine, n, &name, &size, &item); n++ {
		C.wasmtime_component_extern_delete(item)
		if exported := C.GoStringN(name, C.int(size)); strings.HasPrefix(exported, contract) {
			return fmt.Errorf("the component exports %s, and this program needs %s", exported, version)
		}
	}
	return errors.New("the component does not export " + contract + version)
}

// call calls a function of the component.
func (i *instance) call(name string, answer any, args []any) error {
	context := C.wasmtime_store_context(i.store)
	if err := check(C.wasmtime_context_set_fuel(context, fuel)); err != nil {
		return err
	}
	var vals C.wasmtime_component_vallist_t
	C.wasmtime_component_vallist_new_uninit(&vals, C.size_t(1+len(args)))
	defer C.wasmtime_component_vallist_delete(&vals)
	places := unsafe.Slice(vals.data, 1+len(args))
	for n, arg := range args {
		put(&places[1+n], reflect.ValueOf(arg))
	}
	function := i.functions[name]
	err := check(C.wasmtime_component_func_call(&function, context, &places[1], C.size_t(len(args)), &places[0], 1))
	if err != nil {
		return err
	}
	return take(reflect.ValueOf(answer).Elem(), &places[0])
}

// check converts an error of wasmtime, and frees it.
func check(failed *C.wasmtime_error_t) error {
	if failed == nil {
		return nil
	}
	defer C.wasmtime_error_delete(failed)
	var message C.wasm_byte_vec_t
	C.wasmtime_error_message(failed, &message)
	defer C.wasm_byte_vec_delete(&message)
	return errors.New(strings.TrimSpace(C.GoStringN(message.data, C.int(message.size))))
}
