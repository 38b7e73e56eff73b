# Everything from a fresh clone: each target installs what it needs (Rust and a C compiler are taken as given).

.PHONY: run build release deps deps-full lint deny test test-full sim bench soak clean

CARGO ?= cargo

run: ## build, set up a demo under var/, start one imserver and one mux; Ctrl-C stops both
	@scripts/demo

build:
	$(CARGO) build --workspace --bins

release:
	$(CARGO) build --workspace --bins --release

deps: ## what `make test` needs
	@tests/install.sh

deps-full: ## what `make test-full` and `make bench` need
	@tests/install.sh --full

lint:
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

deny: ## licences, bans and sources of every dependency (installs cargo-deny if it is not there)
	@command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check bans licenses sources

test: deps ## what every commit must pass
	$(CARGO) build --workspace --bins
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) test --workspace

test-full: deps-full test ## the rest: foreign servers, long simulation, many clients
	ISTHMUS_TEST_FULL=1 $(CARGO) test -p isthmus-tests -- --nocapture
	SIM_SEEDS=10000 $(MAKE) sim

sim: ## the simulation, SIM_SEEDS seeds (10,000) from SIM_FIRST (1); a failing seed is printed and replays with SIM_FIRST=n SIM_SEEDS=1
	$(CARGO) run --release -q -p isthmus-sim -- --first $${SIM_FIRST:-1} --seeds $${SIM_SEEDS:-10000}

bench: deps-full release ## side by side with ejabberd and Prosody; prints ratios of one run
	$(CARGO) run --release -q -p isthmus-bench -- compare

clean:
	$(CARGO) clean
	rm -rf var
