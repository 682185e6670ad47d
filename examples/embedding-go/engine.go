package main

// #include "wasmtime.h"
import "C"

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"unsafe"
)

const (
	contract = "edge:session/engine@"
	version  = "0.2.0"

	// maxMemory is the limit for the memory of an instance. It holds a session several times.
	maxMemory = 128 << 20

	// fuel is the limit for the instructions of a call. A call with a session of 1 MiB takes tens of
	// millions.
	fuel = 2_000_000_000
)

// Engine is the component with its options. It may be used concurrently: calls take turns.
type Engine struct {
	engine    *C.wasm_engine_t
	component *C.wasmtime_component_t
	linker    *C.wasmtime_component_linker_t
	settings  []Setting

	mutex sync.Mutex
	// instance is nil after a trap.
	instance *instance
}

// instance is an instance of the component, and the functions of the contract.
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

// Open compiles the component, which takes about half a second, and configures it. The error has all
// problems of the options.
func Open(wasm []byte, settings []Setting) (*Engine, error) {
	if len(wasm) == 0 {
		return nil, errors.New("the component is empty")
	}
	config := C.wasm_config_new()
	C.wasmtime_config_consume_fuel_set(config, true)
	e := &Engine{engine: C.wasm_engine_new_with_config(config), settings: settings}
	e.linker = C.wasmtime_component_linker_new(e.engine)
	err := failed(C.wasmtime_component_new(e.engine, (*C.uint8_t)(&wasm[0]), C.size_t(len(wasm)), &e.component))
	if err != nil {
		err = fmt.Errorf("this is no WebAssembly component: %w", err)
	} else {
		err = e.checkVersion()
	}
	if err == nil {
		err = failed(C.wasmtime_component_linker_add_wasip2(e.linker))
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
func (e *Engine) Begin(request Request) (Beginning, error) {
	return call[Beginning](e, "begin", request)
}

// Loaded continues with what the store has loaded.
func (e *Engine) Loaded(visit Visit, loaded Loaded) (Beginning, error) {
	return call[Beginning](e, "loaded", visit, loaded)
}

// Finish decides what to store. stored is what was loaded last.
func (e *Engine) Finish(visit Visit, stored *Stored, change Change) (Plan, error) {
	return call[Plan](e, "finish", visit, stored, change)
}

// Resume decides again after the write number at of the plan has met an obstacle.
func (e *Engine) Resume(visit Visit, stored *Stored, change Change, at int, obstacle Obstacle) (Plan, error) {
	return call[Plan](e, "resume", visit, stored, change, uint32(at), obstacle)
}

// call calls a function of a request. Its error is a *Failure.
func call[T any](e *Engine, name string, args ...any) (T, error) {
	var answer result[T, Failure]
	if err := e.call(name, &answer, args); err != nil {
		reason := "the component failed: " + err.Error()
		return answer.Ok, &Failure{"unavailable", 503, "Sessions are unavailable. Please try again.", reason}
	}
	if answer.Case != "ok" {
		return answer.Ok, &answer.Err
	}
	return answer.Ok, nil
}

func (e *Engine) call(name string, answer any, args []any) (err error) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if e.instance == nil {
		if e.instance, err = e.instantiate(); err != nil {
			return err
		}
	}
	if err = e.instance.call(name, answer, args); err != nil {
		// After a trap, the instance may be inconsistent.
		C.wasmtime_store_delete(e.instance.store)
		e.instance = nil
	}
	return err
}

// instantiate creates an instance and configures it.
func (e *Engine) instantiate() (*instance, error) {
	i := &instance{C.wasmtime_store_new(e.engine, nil, nil), map[string]C.wasmtime_component_func_t{}}
	err := i.open(e)
	var answer result[[]Setting, []Problem]
	if err == nil {
		err = i.call("configure", &answer, []any{e.settings})
	}
	if err == nil && answer.Case != "ok" {
		text := "the options cannot be used:"
		for _, problem := range answer.Err {
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

// open instantiates the component in a new store, with a clock and randomness. The WASI
// configuration has no files, environment or network.
func (i *instance) open(e *Engine) error {
	context := C.wasmtime_store_context(i.store)
	C.wasmtime_store_limiter(i.store, maxMemory, -1, -1, -1, -1)
	if err := failed(C.wasmtime_context_set_wasi(context, C.wasi_config_new())); err != nil {
		return err
	}
	if err := failed(C.wasmtime_context_set_fuel(context, fuel)); err != nil {
		return err
	}
	var made C.wasmtime_component_instance_t
	if err := failed(C.wasmtime_component_linker_instantiate(e.linker, context, e.component, &made)); err != nil {
		return err
	}
	engine := e.export(nil, contract+version)
	if engine == nil {
		return errors.New("the component does not export " + contract + version)
	}
	defer C.wasmtime_component_export_index_delete(engine)
	for _, name := range []string{"configure", "begin", "loaded", "finish", "resume"} {
		index := e.export(engine, name)
		if index == nil {
			return errors.New("the component has no function " + name)
		}
		var function C.wasmtime_component_func_t
		isFunction := C.wasmtime_component_instance_get_func(&made, context, index, &function)
		C.wasmtime_component_export_index_delete(index)
		if !isFunction {
			return errors.New("the component has something else than a function " + name)
		}
		i.functions[name] = function
	}
	return nil
}

// export finds an export of the component, or of an interface of it.
func (e *Engine) export(parent *C.wasmtime_component_export_index_t, name string) *C.wasmtime_component_export_index_t {
	text := []byte(name)
	return C.wasmtime_component_get_export_index(e.component, parent, (*C.char)(unsafe.Pointer(&text[0])), C.size_t(len(text)))
}

// checkVersion refuses a component for another version of the contract.
func (e *Engine) checkVersion() error {
	exports := C.wasmtime_component_type(e.component)
	defer C.wasmtime_component_type_delete(exports)
	for n := C.size_t(0); ; n++ {
		var name *C.char
		var size C.size_t
		var item *C.wasmtime_component_extern_t
		if !C.wasmtime_component_type_export_nth(exports, e.engine, n, &name, &size, &item) {
			return errors.New("the component does not export " + contract + version)
		}
		C.wasmtime_component_extern_delete(item)
		exported := C.GoStringN(name, C.int(size))
		if exported == contract+version {
			return nil
		}
		if strings.HasPrefix(exported, contract) {
			return fmt.Errorf("the component exports %s, and this program needs %s", exported, version)
		}
	}
}

func (i *instance) call(name string, answer any, args []any) error {
	context := C.wasmtime_store_context(i.store)
	if err := failed(C.wasmtime_context_set_fuel(context, fuel)); err != nil {
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
	err := failed(C.wasmtime_component_func_call(&function, context, &places[1], C.size_t(len(args)), &places[0], 1))
	if err != nil {
		return err
	}
	return take(reflect.ValueOf(answer).Elem(), &places[0])
}

// failed converts an error of wasmtime and frees it.
func failed(from *C.wasmtime_error_t) error {
	if from == nil {
		return nil
	}
	defer C.wasmtime_error_delete(from)
	var message C.wasm_byte_vec_t
	C.wasmtime_error_message(from, &message)
	defer C.wasm_byte_vec_delete(&message)
	// The last line has the cause; those above it name functions.
	lines := strings.Split(strings.TrimSpace(C.GoStringN(message.data, C.int(message.size))), "\n")
	return errors.New(strings.TrimSpace(lines[len(lines)-1]))
}
