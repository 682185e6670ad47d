# The project's verbs. What takes more than a line is a script in scripts/.
# CARGO_TARGET_DIR is respected; the component is always target/session.wasm of this checkout.

.DEFAULT_GOAL := help
.PHONY: run check test interop mutants component bundle middleware package bench bench-gateway bench-embeddings bench-hostile fuzz lint fmt setup clean help

run: ## serve the built-in app on http://127.0.0.1:8080 (ARGS="…" go to `edge-session serve`)
	@exec scripts/run $(ARGS)

check: ## formatting, lints and unit tests, within a minute (ARGS=guards: the unit tests of that name)
	@exec scripts/check $(ARGS)

test: ## set up, build, run every test, lint (ARGS=guards: the tests of that name, and what they need)
	@exec scripts/test $(ARGS)

interop: ## compare with express-session and connect-mongo (CASES=5000 of each set; ARGS="--seed N --set text")
	@scripts/interop --cases $(or $(CASES),1000) $(ARGS)

mutants: ## change the component's rules one by one: does a test notice? (needs `cargo install cargo-mutants`)
	cargo mutants -p edge-session-component --no-shuffle -o target $(ARGS)

component: ## build the WebAssembly component, target/session.wasm
	@scripts/setup wasm
	@[ -f target/session.wasm ] || echo "==> building the component, up to 5 minutes the first time …"
	@cargo run -q -p xtask -- component

bundle: component ## put the component into the library's package: after a change of component/ or wit/
	@cargo run -q -p xtask -- bundle

middleware: ## build the components for wasi:http, target/middleware.wasm and a sample to serve
	@scripts/setup wasm
	@[ -f target/middleware.wasm ] || echo "==> building the middleware, up to 5 minutes the first time …"
	@cargo run -q -p xtask -- middleware

package: ## make everything that is published, in target/dist-packages
	@exec scripts/package

bench: ## measure what a session costs, beside tower-sessions (ARGS=--quick: only try it out)
	@scripts/setup wrk
	@cargo run --profile dist -p edge-session-bench -- $(ARGS)

bench-gateway: ## measure the gateway beside nginx and Express (ARGS=--quick: only try it out)
	@bench/run-gateway $(ARGS)

bench-embeddings: ## measure each embedding beside its language's own sessions (ARGS=--quick: only try it out)
	@bench/run-embeddings $(ARGS)

bench-hostile: ## measure what another visitor sees under attack, beside nginx (ARGS=--quick: only try it out)
	@bench/run-hostile $(ARGS)

fuzz: ## fuzz the parsers for a minute each (SECONDS_EACH=600; ARGS="gateway": that target only)
	@scripts/fuzz $(ARGS)

lint: ## formatting, clippy, the docs, the dependencies (EDGE_SESSION_LINT_STRICT=1: their advisories, too)
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace
	@scripts/deny

fmt: ## format the sources
	cargo fmt --all
	cargo fmt --manifest-path fuzz/Cargo.toml

setup: ## install what building and testing need, without building anything
	@scripts/setup wasm node python php mongod wasmtime browser fuzz deny wrk oci

clean: ## remove all that was built or installed here; data/, with its sessions and secret, stays
	cargo clean
	rm -rf target tests/node/node_modules bench/node/node_modules gateways/node/node_modules gateways/node/generated

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
