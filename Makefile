# Everything runs inside $(VENV). PYTHON chooses the interpreter it is made with, VENV where it stands:
#   make test PYTHON=python3.10 VENV=.venv310
VENV ?= .venv
CC ?= cc
JOBS ?= 2

bin := $(VENV)/bin
python := $(bin)/python
installed := $(VENV)/installed
pip := $(python) -m pip --disable-pip-version-check --no-input install -qq -c requirements/constraints.txt
# The TVM generation with Relay and tvmc has an environment of its own.
RELAY_VENV ?= .venv-relay
relay_python := $(RELAY_VENV)/bin/python
relay_installed := $(RELAY_VENV)/installed
relay_pip := $(relay_python) -m pip --disable-pip-version-check --no-input install -qq -c requirements/relay.txt
mobilenet := build/mobilenet_v2_int8.onnx

usable = import sys, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))

ifeq ($(strip $(PYTHON)),)
# The one in $(VENV) stays if it is usable. A name on PATH may be a shim without an interpreter behind it, or lack
# ensurepip: try each one.
override PYTHON = $(shell for name in $(python) python3.13 python3.12 python3.11 python3.10 python3; do \
	$$name -c '$(usable)' </dev/null >/dev/null 2>&1 && echo $$name && break; done)
else ifneq ($(shell { $(PYTHON) -V; } 2>&1),$(shell { $(python) -V; } 2>&1))
# An interpreter named by the user that is not the one in $(VENV) calls for a new $(VENV).
$(installed): other-interpreter
.PHONY: other-interpreter
other-interpreter:
endif

is_310 = import sys, ensurepip; sys.exit(sys.version_info[:2] != (3, 10))
RELAY_PYTHON ?= $(shell for name in $(relay_python) python3.10 "$$(pyenv root 2>/dev/null)"/versions/3.10*/bin/python3.10; do \
	$$name -c '$(is_310)' </dev/null >/dev/null 2>&1 && echo $$name && break; done)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

.PHONY: help
help: ## this list
	@echo 'make TARGET [PYTHON=python3.12] [VENV=.venv] [JOBS=2]'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-12s %s\n", $$1, $$2}'

.PHONY: setup
setup: $(installed) ## the virtual environment with pinned dependencies, and the emulator
	@$(python) -m npu_backend.runtime build

$(installed): pyproject.toml requirements/constraints.txt
	@test -n '$(strip $(PYTHON))' || { echo 'no Python 3.10 to 3.13 with ensurepip found: install one' \
		'(Debian: python3 and python3-venv) or name it with PYTHON=' >&2; exit 1; }
	@$(PYTHON) -c '$(usable)' </dev/null || { echo '$(PYTHON) does not run as Python 3.10 to 3.13 with ensurepip:' \
		'name another with PYTHON=' >&2; exit 1; }
	@echo 'installing into $(VENV) with $(PYTHON) (once; some minutes on a slow line)'
	@test "$$($(python) -V 2>&1)" = "$$($(PYTHON) -V)" && $(python) -m pip -V >/dev/null 2>&1 || \
		$(PYTHON) -m venv --clear $(VENV)
	@$(pip) pip setuptools
	@$(pip) --no-build-isolation -e '.[all,dev]'
	@touch $@

.PHONY: run
run: setup ## MobileNetV2 in int8 on three cores of the emulator, held to ONNX Runtime
	@mkdir -p $(dir $(mobilenet))
	@$(python) -m models build mobilenet_v2 --quantized -o $(mobilenet)
	@$(bin)/npuc run $(mobilenet) --machine exynos2100 --cores 3 --verify

.PHONY: test
test: setup ## all tests, those of the Relay generation too where Python 3.10 is found
	@$(python) -m pytest -q -n $(JOBS) --dist worksteal
	@$(MAKE) test-relay

.PHONY: test-relay
ifeq ($(strip $(RELAY_PYTHON)),)
test-relay: ## Relay and plain tvmc: TVM 0.16 under Python 3.10 (RELAY_PYTHON names it), in an environment of its own
	@echo '!!! THE TESTS OF RELAY AND TVMC DID NOT RUN: no Python 3.10 with ensurepip found; install one or name it' \
		'with RELAY_PYTHON=' >&2
else
test-relay: setup $(relay_installed)
	@NPU_RELAX_PYTHON=$(abspath $(python)) $(relay_python) -m pytest -q -n $(JOBS) tests/relay tests/tvmc tests/tir
endif

$(relay_installed): pyproject.toml requirements/relay.txt
	@echo 'installing into $(RELAY_VENV) with $(RELAY_PYTHON) (once; some minutes on a slow line)'
	@$(relay_python) -m pip -V >/dev/null 2>&1 || $(RELAY_PYTHON) -m venv --clear $(RELAY_VENV)
	@$(relay_pip) pip setuptools
	@$(relay_pip) --no-build-isolation -e '.[relay,verify,models]' pytest pytest-xdist hypothesis
	@$(relay_python) -m tvm_ext.tvmc_hook
	@touch $@

.PHONY: check
check: setup ## lint, format, types, generated files and the fast tests, in under a minute
	@start=$$(date +%s) && $(MAKE) lint types check-gen fast && \
		echo "check: $$(($$(date +%s) - start)) s (bound: 60 s)"

.PHONY: lint
lint: $(installed) ## ruff: rules and format
	@$(bin)/ruff check -q
	@$(bin)/ruff format -q --diff

.PHONY: types
types: $(installed) ## mypy, strict
	@$(bin)/mypy --no-error-summary

.PHONY: check-gen
check-gen: $(installed) ## the generated C headers equal their source tables
	@$(python) -m npu_backend.generate_header --check || { echo 'a C header of npu_backend/emulator is stale:' \
		'run python -m npu_backend.generate_header' >&2; exit 1; }

.PHONY: fast
fast: setup ## the tests that are not marked slow
	@$(python) -m pytest -q -n $(JOBS) --dist worksteal -m 'not slow'

.PHONY: golden
golden: setup ## rewrite the golden files; review the difference before committing
	@$(python) -m pytest -q -n $(JOBS) --update-golden

.PHONY: asan
asan: $(installed) ## the emulator and its tests under the address and undefined-behaviour sanitizers
	@$(python) -m npu_backend.runtime build --sanitize
	@NPU_SANITIZE=1 PYTHONMALLOC=malloc \
		ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
		LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libstdc++.so.6)" \
		$(python) -m pytest -q tests/emulator tests/ops/test_kernel.py

.PHONY: bench
bench: setup ## emulator, timing and compiler against ONNX Runtime: a table and JSON
	@$(python) -m benchmarks

.PHONY: calibrate
calibrate: setup ## the free parameters of the exynos2100 from four published latencies, written into its file
	@$(python) -m benchmarks.calibrate

.PHONY: bench-zoo
bench-zoo: setup ## the emulator against ONNX Runtime on the models of others, in half precision and int8
	@$(python) -m benchmarks.zoo

.PHONY: bench-vela
bench-vela: setup ## emulated latency and DRAM traffic beside the estimates of Arm's compiler Vela
	@$(python) -m benchmarks.vela

.PHONY: bench-front-end
bench-front-end: setup ## seconds from MobileNetV2 in int8 to its NPU graph, in each TVM generation that is installed
	@$(python) -m benchmarks.front_end
	@test ! -e $(relay_installed) || $(relay_python) -m benchmarks.front_end

.PHONY: bench-network
bench-network: setup ## up to 64 cores and six topologies on the emulator's clock (hours; takes up where it stopped)
	@mkdir -p build
	@$(python) -m benchmarks.network --json build/network.json

.PHONY: onnx-suite
onnx-suite: setup ## ONNX's backend suite on the NPU and on TVM's CPU build (minutes; takes up where it stopped)
	@$(python) -m benchmarks.onnx_suite --workers $(JOBS) --markdown docs/onnx_suite.md

.PHONY: models
models: $(installed) ## fetch the real models the tests use
	@$(python) -m models fetch

.PHONY: fmt
fmt: $(installed) ## mend what ruff can mend, and format
	@$(bin)/ruff check -q --fix --exit-zero
	@$(bin)/ruff format -q

.PHONY: clean
clean: ## remove everything made here: environment, builds and caches
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find npu_backend tvm_ext models benchmarks tests -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
