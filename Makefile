# `make` prints this menu. `make run` and `make test` need git, a C compiler and cargo, nothing else.

CARGO ?= cargo
# First build after a fresh clone: optimised, without link-time optimisation, with the embedded fleet.
DEMO = $(CARGO) run --profile demo -p gateway --no-default-features --features demo --

# Tests that run at once. A good part of their time is waiting, so there are three times as many as cores.
THREADS = $(shell echo $$(($$(nproc 2>/dev/null || echo 2) * 3)))

# File in which the tests write how many cases they checked, and the script that adds them up.
CASES = $(CURDIR)/target/cases
COUNTED = mkdir -p target && rm -f $(CASES)
SUM = sort $(CASES) | awk -f tests/cases/sum.awk

# Seconds for each fuzz target; and compiler flags that let libFuzzer see which code an input reaches.
SECONDS ?= 60
FUZZED = client_address config headers http1 json merge metering path proxy_protocol splice
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
COVERAGE = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-trace-compares \
	-Cdebug-assertions=yes -Coverflow-checks=yes

.DEFAULT_GOAL := help
.PHONY: help run test check docs e2e tour prove fuzz replay bench load soak compare dist fmt clean

help: ## print this menu
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## start the demo: a gateway before an embedded fleet, with curl lines to paste
	@$(DEMO) demo

test: ## run all tests: policies, gateway, pretend fleet, end to end, the tour
	@$(COUNTED)
	CASES=$(CASES) RUST_TEST_THREADS=$(THREADS) $(CARGO) test --workspace
	@$(SUM)

check: ## verify formatting, lints and docs; writes nothing
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet

docs: ## write the generated references under gateway/docs anew
	WRITE_DOCS=1 $(CARGO) test -q -p gateway --lib reference

e2e: ## run the end-to-end tests; CASE=breaker narrows to one promise
	$(CARGO) test -p tests --test e2e -- $(CASE)

tour: ## walk through what the demo's banner says, and check what comes back
	@$(DEMO) demo --tour

prove: ## run the long proofs: all interleavings, properties with many more cases, more load end to end
	@$(COUNTED)
	CASES=$(CASES) RUSTFLAGS="--cfg loom" $(CARGO) test --release -p policies --test interleavings --target-dir target/loom
	CASES=$(CASES) PROPTEST_CASES=20000 $(CARGO) test --release -p policies
	CASES=$(CASES) PROPTEST_CASES=5000 $(CARGO) test -p gateway --lib properties
	CASES=$(CASES) $(CARGO) test -p tests --features long
	@$(SUM)

fuzz: ## give hostile input to every reader, SECONDS=60 each (needs a C++ compiler)
	RUSTFLAGS="$(COVERAGE)" $(CARGO) build --profile fuzz -p fuzz --features engine --target $(HOST) --target-dir target/fuzz
	@for target in $(FUZZED); do \
		mkdir -p target/fuzz/corpus/$$target && echo "fuzz: $$target" && \
		target/fuzz/$(HOST)/fuzz/$$target -max_total_time=$(SECONDS) -max_len=4096 -timeout=5 -rss_limit_mb=1024 \
			-artifact_prefix=target/fuzz/$$target- -print_final_stats=1 \
			$$(test -f tests/fuzz/dictionaries/$$target && echo -dict=tests/fuzz/dictionaries/$$target) target/fuzz/corpus/$$target \
			tests/fuzz/cases/$$target $$(test $$target = config && echo fixtures/configs fixtures/invalid) \
			2> target/fuzz/$$target.log || { tail -40 target/fuzz/$$target.log; exit 1; }; \
		grep -E 'number_of_executed_units|new_units_added|peak_rss' target/fuzz/$$target.log; \
	done

replay: ## answer published test vectors, a question a line in and an answer a line out
	@$(CARGO) run -q -p gateway --example replay

bench: ## measure policies and the finding of routes; count the instructions of a request (needs valgrind)
	$(CARGO) bench -p load --bench policies
	$(CARGO) bench -p load --bench routing
	$(CARGO) build --release -p gateway
	$(CARGO) run --release -p load --bin load -- instructions

load: ## show on the real binary what the README promises under load
	$(CARGO) build --release -p gateway
	$(CARGO) run --release -p load --bin load -- scenario all

soak: ## run ten minutes of aggregates at 256 at once, and watch the memory
	$(CARGO) build --release -p gateway
	$(CARGO) run --release -p load --bin load -- scenario soak

compare: ## measure beside nginx, HAProxy, Envoy, Traefik and Caddy (BENCH=folder of the harness)
	$(CARGO) build --release -p gateway
	load/compare

dist: ## build the release binary, and its debug information apart (needs objcopy)
	CARGO_PROFILE_RELEASE_STRIP=none $(CARGO) build --release -p gateway
	mkdir -p target/dist
	objcopy --only-keep-debug target/release/gateway target/dist/gateway.debug
	objcopy --strip-all --add-gnu-debuglink=target/dist/gateway.debug target/release/gateway target/dist/gateway

fmt: ## format the code
	$(CARGO) fmt --all

clean: ## remove what was built
	$(CARGO) clean
