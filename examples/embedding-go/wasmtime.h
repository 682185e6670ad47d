// The part of the C API of wasmtime 50 that this example uses. The complete headers, which document
// every function, are in wasmtime's releases.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct wasm_config wasm_config_t;
typedef struct wasm_engine wasm_engine_t;
typedef struct wasi_config wasi_config_t;
typedef struct wasmtime_error wasmtime_error_t;
typedef struct wasmtime_store wasmtime_store_t;
typedef struct wasmtime_context wasmtime_context_t;
typedef struct wasmtime_component wasmtime_component_t;
typedef struct wasmtime_component_type wasmtime_component_type_t;
typedef struct wasmtime_component_extern wasmtime_component_extern_t;
typedef struct wasmtime_component_export_index wasmtime_component_export_index_t;
typedef struct wasmtime_component_linker wasmtime_component_linker_t;

// Indices into a store, which do not have to be freed.
typedef struct { uint64_t words[2]; } wasmtime_component_instance_t;
typedef struct { uint64_t words[4]; } wasmtime_component_func_t;

typedef struct {
	size_t size;
	char *data;
} wasm_byte_vec_t;

enum {
	WASMTIME_COMPONENT_BOOL = 0,
	WASMTIME_COMPONENT_U8 = 2,
	WASMTIME_COMPONENT_U16 = 4,
	WASMTIME_COMPONENT_U32 = 6,
	WASMTIME_COMPONENT_U64 = 8,
	WASMTIME_COMPONENT_STRING = 12,
	WASMTIME_COMPONENT_LIST = 13,
	WASMTIME_COMPONENT_RECORD = 14,
	WASMTIME_COMPONENT_VARIANT = 16,
	WASMTIME_COMPONENT_ENUM = 17,
	WASMTIME_COMPONENT_OPTION = 18,
	WASMTIME_COMPONENT_RESULT = 19,
};

// A value is its kind and a union of at most three words. The words are named here, because Go sees
// a union as bytes without alignment:
//
//                  word                   first               second
//   bool, number   the value
//   string, enum   number of bytes        the text
//   list           number of values       the values
//   record         number of entries      the entries
//   variant        bytes of the name      the case's name     the payload, or NULL
//   option         the payload, or NULL
//   result         1 if it is ok          the payload, or NULL
//
// An empty string or list may have any address, and only the lowest byte of a bool is set.
typedef struct {
	uint8_t kind;
	size_t word;
	void *first;
	void *second;
} wasmtime_component_val_t;

typedef struct {
	wasm_byte_vec_t name;
	wasmtime_component_val_t val;
} wasmtime_component_valrecord_entry_t;

typedef struct {
	size_t size;
	wasmtime_component_val_t *data;
} wasmtime_component_vallist_t;

typedef struct {
	size_t size;
	wasmtime_component_valrecord_entry_t *data;
} wasmtime_component_valrecord_t;

_Static_assert(sizeof(void *) == 8 && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "these words are others");

// Functions that return an error return NULL on success.
void wasmtime_error_message(const wasmtime_error_t *, wasm_byte_vec_t *message);
void wasmtime_error_delete(wasmtime_error_t *);
void wasm_byte_vec_delete(wasm_byte_vec_t *);

wasm_config_t *wasm_config_new(void);
void wasmtime_config_consume_fuel_set(wasm_config_t *, bool);
wasm_engine_t *wasm_engine_new_with_config(wasm_config_t *); // takes the configuration
void wasm_engine_delete(wasm_engine_t *);

wasmtime_error_t *wasmtime_component_new(const wasm_engine_t *, const uint8_t *wasm, size_t size,
	wasmtime_component_t **out);
wasmtime_component_export_index_t *wasmtime_component_get_export_index(const wasmtime_component_t *,
	const wasmtime_component_export_index_t *interface, const char *name, size_t size);
void wasmtime_component_export_index_delete(wasmtime_component_export_index_t *);
void wasmtime_component_delete(wasmtime_component_t *);
wasmtime_component_type_t *wasmtime_component_type(const wasmtime_component_t *);
bool wasmtime_component_type_export_nth(const wasmtime_component_type_t *, const wasm_engine_t *,
	size_t nth, const char **name, size_t *size, wasmtime_component_extern_t **out);
void wasmtime_component_extern_delete(wasmtime_component_extern_t *);
void wasmtime_component_type_delete(wasmtime_component_type_t *);

wasmtime_component_linker_t *wasmtime_component_linker_new(const wasm_engine_t *);
wasmtime_error_t *wasmtime_component_linker_add_wasip2(wasmtime_component_linker_t *);
wasmtime_error_t *wasmtime_component_linker_instantiate(const wasmtime_component_linker_t *,
	wasmtime_context_t *, const wasmtime_component_t *, wasmtime_component_instance_t *out);
void wasmtime_component_linker_delete(wasmtime_component_linker_t *);

wasmtime_store_t *wasmtime_store_new(wasm_engine_t *, void *data, void (*finalizer)(void *));
void wasmtime_store_limiter(wasmtime_store_t *, int64_t memory, int64_t table_elements, int64_t instances,
	int64_t tables, int64_t memories); // -1: the default
wasmtime_context_t *wasmtime_store_context(wasmtime_store_t *);
wasi_config_t *wasi_config_new(void);
wasmtime_error_t *wasmtime_context_set_wasi(wasmtime_context_t *, wasi_config_t *); // takes the configuration
wasmtime_error_t *wasmtime_context_set_fuel(wasmtime_context_t *, uint64_t);
void wasmtime_store_delete(wasmtime_store_t *);

bool wasmtime_component_instance_get_func(const wasmtime_component_instance_t *, wasmtime_context_t *,
	const wasmtime_component_export_index_t *, wasmtime_component_func_t *out);
// Copies the arguments, and replaces the results. Aborts the process if a text is not UTF-8.
wasmtime_error_t *wasmtime_component_func_call(const wasmtime_component_func_t *, wasmtime_context_t *,
	const wasmtime_component_val_t *args, size_t args_size, wasmtime_component_val_t *results,
	size_t results_size);

// These make what a value refers to, which belongs to the value. The kind of a new value is BOOL, and
// its words are not initialized.
void wasm_byte_vec_new(wasm_byte_vec_t *out, size_t size, const char *data); // copies
void wasmtime_component_vallist_new_uninit(wasmtime_component_vallist_t *out, size_t size);
void wasmtime_component_valrecord_new_uninit(wasmtime_component_valrecord_t *out, size_t size);
wasmtime_component_val_t *wasmtime_component_val_new(wasmtime_component_val_t *empty);
void wasmtime_component_vallist_delete(wasmtime_component_vallist_t *);
