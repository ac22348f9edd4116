# `make live` and `make test` set up everything they need on a fresh Debian or Ubuntu machine.
PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
SLOW   ?=
PY     := $(VENV)/bin/python
# The build of torch that the tests are run with; a newer one in range may be put here.
TORCH  ?= torch==2.13.0

.DEFAULT_GOAL := help
.PHONY: help live test lint bench eval clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

live: $(VENV)/.live ## play: microphone in, clean voice out; ARGS="--preset stage --seconds 15"
	@PYTHON="$(PYTHON)" sh .ci/system.sh live
	@$(PY) run_live.py $(ARGS)

test: $(VENV)/.test lint ## everything that must hold; SLOW=1 adds the slow tests, ARGS="-k gate" selects
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not jack$(if $(SLOW),, and not slow)" $(ARGS) || [ $$? = 5 ]
# Real audio servers have the machine for themselves: two at once lose each other's blocks. What fails is tried again,
# and named as tried again: a machine that stalls for a moment throws a client out of its server. A server that hangs
# holds its clients for ever: then the test has failed, and the next one begins.
	$(PY) -m pytest -n 0 --reruns 2 --timeout 300 -m "jack$(if $(SLOW),, and not slow)" $(ARGS) || [ $$? = 5 ]

lint: $(VENV)/.test ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

bench: $(VENV)/.test ## measure against the best peers; ARGS="kernels"
	$(VENV)/bin/pip install -q -e '.[bench]' || echo "some peers have no wheel here and will be skipped by name"
	$(PY) -m rtgan bench $(ARGS)

eval: $(VENV)/.test ## the denoiser against its peer; ARGS="--data FOLDER"
	$(VENV)/bin/pip install -q -e '.[eval]' || echo "some peers have no wheel here and will be skipped by name"
	$(PY) -m rtgan eval denoise $(ARGS)

clean: ## remove what make has made
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/.venv: .ci/system.sh
	@PYTHON="$(PYTHON)" sh .ci/system.sh live
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --upgrade pip
	@touch $@

$(VENV)/.live: $(VENV)/.venv pyproject.toml
	$(PY) -m pip install -q -e '.[plot]'
	$(PY) -m rtgan.warm
	@touch $@

$(VENV)/.test: $(VENV)/.live
	@PYTHON="$(PYTHON)" sh .ci/system.sh test
	$(PY) -m pip install -q '$(TORCH)' -e '.[torch,plot,dev]'
	@touch $@
