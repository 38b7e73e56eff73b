# Everything from a fresh clone: each target installs what it needs (Rust and a C compiler are taken as given).

.PHONY: run build release deps deps-bench lint deny test test-full test-kerberos test-samba build-gssapi sim fuzz bench bench-archive clean

CARGO ?= cargo
SIM_FIRST ?= 1
SIM_SEEDS ?= 10000
FUZZ_SECONDS ?= 60

run: ## build, set up a demo under var/, start one imserver and one mux; Ctrl-C stops both
	@scripts/demo

build:
	$(CARGO) build --workspace --bins

release:
	$(CARGO) build --workspace --bins --release

deps: ## what the tests need from Debian, PyPI and npm
	@tests/install.sh

deps-bench: ## what `make bench` needs: ejabberd and Prosody
	@bench/install.sh

lint:
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

deny: ## licences, bans and sources of every dependency (installs cargo-deny if it is not there)
	@command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check bans licenses sources

test: deps lint build ## what every commit must pass
	$(CARGO) test --workspace

test-full: test build-gssapi ## and Prosody as a judge of the scripts, Kerberos, Active Directory, 15,000 clients, a long simulation
	$(CARGO) test -p isthmus-tests --features full
	$(MAKE) sim deny

test-kerberos: build-gssapi ## log-in with tickets of a real KDC
	$(CARGO) test -p isthmus-tests --features full --test e2e -- kerberos::

test-samba: build-gssapi ## people of a real Active Directory domain controller
	$(CARGO) test -p isthmus-tests --features full --test e2e -- samba::

build-gssapi: ## an imserver with GSSAPI in target/debug, linted and tested; what it and the tests of it need is installed
	@tests/install.sh full
	$(CARGO) clippy -p isthmus-imserver -p isthmus-directory --features isthmus-imserver/gssapi --all-targets -- -D warnings
	$(CARGO) test -p isthmus-imserver -p isthmus-directory --features isthmus-imserver/gssapi --lib gssapi
	$(CARGO) build -p isthmus-imserver --features gssapi

sim: ## the simulation: SIM_SEEDS seeds from SIM_FIRST; a failing seed is printed and replays with SIM_FIRST=n SIM_SEEDS=1
	$(CARGO) run --release -q -p isthmus-sim --bin sim -- --first $(SIM_FIRST) --seeds $(SIM_SEEDS)

fuzz: ## every fuzz target for FUZZ_SECONDS (installs cargo-fuzz if it is not there)
	@scripts/fuzz $(FUZZ_SECONDS)

bench: deps-bench release ## side by side with ejabberd and Prosody; prints the ratios of one run
	$(CARGO) run --release -q -p isthmus-bench -- compare

bench-archive: ## a page of an archive out of 1 and 10 million messages, and what searching it costs; 4 GB of disk, minutes
	$(CARGO) run --release -q -p isthmus-store --example archive_pages
	$(CARGO) run --release -q -p isthmus-store --example archive_search

clean:
	$(CARGO) clean
	rm -rf var
