# The project's targets. Anything longer than a line is a script in scripts/.
# CARGO_TARGET_DIR is respected; the component is always target/session.wasm of this checkout.

.DEFAULT_GOAL := help
.PHONY: run check test interop simulate mutants component bundle middleware package bench bench-gateway bench-embeddings bench-stores bench-gateways bench-hostile fuzz lint fmt setup clean help

run: ## serve the built-in app on http://127.0.0.1:8080 (ARGS="…" are passed to `edge-session serve`)
	@exec scripts/run $(ARGS)

check: ## formatting, lints and unit tests (ARGS=guards: only tests with this name, black-box ones too)
	@exec scripts/check $(ARGS)

test: ## set up, build, run all tests and lints (ARGS=guards: only tests of that name)
	@exec scripts/test $(ARGS)

interop: ## compare with express-session and its stores (CASES=5000 of each set; ARGS="--store redis --seed N")
	@scripts/interop --cases $(or $(CASES),1000) $(ARGS)

simulate: ## play random histories of gateways, visitors and a failing store (ARGS="--seconds 30 --seed N", or --mutations)
	@exec scripts/simulate $(ARGS)

mutants: ## check that the tests detect changed component rules (requires `cargo install cargo-mutants`)
	cargo mutants -p edge-session-component --no-shuffle -o target $(ARGS)

component: ## build the WebAssembly component, target/session.wasm
	@scripts/setup wasm
	@[ -f target/session.wasm ] || echo "==> building the component, up to 5 minutes the first time …"
	@cargo run -q -p xtask -- component

bundle: ## build the component and copy it into the library's package, after a change in component/ or wit/
	@scripts/setup wasm
	@cargo run -q -p xtask -- bundle

middleware: ## build the wasi:http components: target/middleware.wasm and a sample application
	@scripts/setup wasm
	@[ -f target/middleware.wasm ] || echo "==> building the middleware, up to 5 minutes the first time …"
	@cargo run -q -p xtask -- middleware

package: ## build all published packages, in target/dist-packages
	@exec scripts/package

bench: ## measure the cost of a session, compared with tower-sessions (ARGS=--quick: a short trial)
	@scripts/setup wrk
	@cargo run --profile dist -p edge-session-bench -- $(ARGS)

bench-gateway: ## measure the gateway, compared with nginx and Express (ARGS=--quick: a short trial)
	@bench/run-gateway $(ARGS)

bench-embeddings: ## measure each embedding, compared with its language's own sessions (ARGS=--quick: a short trial)
	@bench/run-embeddings $(ARGS)

bench-stores: ## measure each store, compared with its client alone and with Express (ARGS=--quick: a short trial)
	@bench/run-stores $(ARGS)

bench-gateways: ## measure Envoy, nginx, Caddy, Traefik and HAProxy, alone and asking edge-session (ARGS=--quick: a short trial)
	@bench/run-gateways $(ARGS)

bench-hostile: ## measure how an attack affects other visitors, compared with nginx (ARGS=--quick: a short trial)
	@bench/run-hostile $(ARGS)

fuzz: ## fuzz the parsers for a minute each (SECONDS_EACH=600; ARGS="gateway": only that target)
	@scripts/fuzz $(ARGS)

lint: ## check formatting, clippy, docs and dependencies (EDGE_SESSION_LINT_STRICT=1: require advisories)
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace
	@scripts/deny

fmt: ## format the sources
	cargo fmt --all
	cargo fmt --manifest-path fuzz/Cargo.toml

setup: ## install everything that building and testing require, without building
	@scripts/setup wasm node python php mongod redis postgres wasmtime browser fuzz deny wrk oci gateways runtimes wasmcloud

clean: ## remove everything built or installed here, except data/ with its sessions and secret
	cargo clean
	rm -rf target tests/node/node_modules bench/node/node_modules gateways/node/node_modules gateways/node/generated

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
