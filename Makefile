# Two commands, each enough by itself on a fresh Debian 12 as root: `make demo` and `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
CACHE ?= /var/cache/pervade
PY := .venv/bin/python
DEBS := containerd runc containernetworking-plugins nftables mmdebstrap iproute2 conntrack iptables \
        slirp4netns busybox-static tcpdump procps util-linux curl ca-certificates python3 python3-venv python3-h2
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PERVADE_CACHE := $(CACHE)

.DEFAULT_GOAL := help
.PHONY: help setup packages kubectl images demo bench test test-all lint format changelog clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

packages: ## install missing Debian packages
	@tools/packages.sh $(DEBS)

.venv/.stamp: requirements/dev.txt pyproject.toml | packages
	@test -x $(PY) || python3 -m venv .venv
	@echo "installing Python requirements" && $(PY) -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@echo "$(CURDIR)/src" > "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/pervade-checkout.pth"
	@printf '#!%s/.venv/bin/python\nfrom pervade.cli.main import main\n\nmain()\n' "$(CURDIR)" > .venv/bin/pervade && chmod +x .venv/bin/pervade
	@touch $@

kubectl: | packages ## build kubectl 1.32 and 1.36 from the upstream Go library (cached)
	@tools/kubectl/build.sh $(CACHE) 1.32 1.36

images: .venv/.stamp ## build the container images (cached by content)
	@.venv/bin/pervade images build --cache-dir $(CACHE)

setup: packages .venv/.stamp kubectl images ## everything `demo` and `test` need

demo: setup ## the tutorial, self-checking; ARGS="--keep" leaves the cluster up
	$(PY) demo/walk.py $(ARGS)

lint: .venv/.stamp ## style, types, import contracts
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

test: setup lint ## the gate: unit and HTTP-level tests, stories on real nodes, the walk
	$(PY) -m pytest -n 2 -m "not live and not matrix"
	$(PY) -m pytest -m "live and not matrix"
	$(PY) demo/walk.py

test-all: setup lint ## everything, the large matrices too, and the samples in a browser
	@tools/packages.sh chromium fonts-dejavu-core
	$(PY) -m pytest -n 2 -m "not live"
	$(PY) -m pytest -m "live"

bench: setup ## figures against their targets (docs/benchmarks.md); ARGS="writes fanout" for parts
	$(PY) -m bench $(ARGS)

format: .venv/.stamp
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

changelog: .venv/.stamp ## news fragments to CHANGELOG.md
	.venv/bin/towncrier build --yes

clean: ## remove what the build made in this folder (the image cache stays: pervade images prune --all)
	rm -rf .venv build dist engine/target .pytest_cache .mypy_cache .ruff_cache
