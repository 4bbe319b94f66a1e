# Everything a newcomer or CI runs. Each target makes its own environment if need be.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: quickstart minimal test test-long triton check lint types docs interop interop-circuit-tracer interop-quickstart bench-env clean

$(VENV)/run.stamp: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	$(PIP) -e '.[dev]'
	touch $@

$(VENV)/docs.stamp: $(VENV)/run.stamp
	$(PIP) -e '.[docs]'
	touch $@

quickstart: $(VENV)/run.stamp  ## install, then sweep SAEs on the built-in model (a few minutes on 2 cores)
	$(BIN)/saesweep run experiments/quickstart.yaml

test: $(VENV)/dev.stamp  ## install the test extra, then the default suite
	# Side by side, one thread each; work is taken over test by test, so that nobody waits for a last long file.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check saesweep tests benchmarks
	$(BIN)/ruff check saesweep tests benchmarks

types: $(VENV)/dev.stamp
	$(BIN)/mypy

LONG ?= tests
test-long: $(VENV)/dev.stamp  ## kills, whole searches, the notebook: minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -m long $(LONG)

# Triton's interpreter runs on a CPU. PyTorch's CPU builds come without Triton, and beside them it stays out of their environment.
.venv-triton/stamp: Makefile $(VENV)/run.stamp
	rm -rf .venv-triton
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --target .venv-triton triton==3.9.0
	touch $@

triton: $(VENV)/dev.stamp .venv-triton/stamp  ## every Triton kernel in its interpreter, without a GPU
	PYTHONPATH=.venv-triton TRITON_INTERPRET=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/cohort/kernels/test_triton_kernels.py

check: lint types test  ## what CI checks

docs: $(VENV)/docs.stamp  ## the documentation as a site in site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The declared dependencies alone, at their lower bounds; of torch the build that $(VENV) has, which pip found by its settings.
minimal: $(VENV)/run.stamp  ## imports, commands and two small sweeps with the least that pyproject.toml declares (a minute)
	rm -rf .venv-minimal
	$(PYTHON) -m venv .venv-minimal/uv
	.venv-minimal/uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
	.venv-minimal/uv/bin/uv venv --quiet --python $(BIN)/python .venv-minimal/env
	$(BIN)/python -c "from importlib.metadata import version; print('torch==' + version('torch'))" > .venv-minimal/torch.txt
	UV_FIND_LINKS="$${PIP_FIND_LINKS:-$$($(BIN)/python -m pip config get global.find-links 2>/dev/null | paste -sd, -)}" VIRTUAL_ENV=.venv-minimal/env \
		.venv-minimal/uv/bin/uv pip install --quiet --resolution lowest-direct --constraint .venv-minimal/torch.txt .
	OMP_NUM_THREADS=1 .venv-minimal/env/bin/python tests/minimal_environment.py
	rm -rf .venv-minimal

# SAELens pins other versions of TransformerLens, so it lives in an environment of its own.
.venv-bench/stamp: constraints.txt
	test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 sae-lens==6.54.12 dictionary_learning==0.1.0 eai-sparsify==1.3.3 psutil optuna pydantic
	# nnsight lists torchvision, whose build does not fit every torch (then importing sae_lens fails); nothing here needs it.
	.venv-bench/bin/python -m pip uninstall --quiet --yes torchvision
	touch $@

bench-env: .venv-bench/stamp  ## the peers, for benchmarks and for the interop check

interop: $(VENV)/run.stamp .venv-bench/stamp  ## losses, gradients, files and metrics agree with SAELens (minutes)
	PYTHONPATH=. .venv-bench/bin/python tests/interop/saelens_parity.py
	PYTHONPATH=. .venv-bench/bin/python tests/interop/saelens_trajectory.py
	PYTHONPATH=. .venv-bench/bin/python tests/interop/saelens_evals.py
	rm -rf .venv-bench/snapshots
	$(BIN)/python tests/interop/saelens_snapshots.py --make .venv-bench/snapshots
	PYTHONPATH=. .venv-bench/bin/python tests/interop/saelens_snapshots.py --check .venv-bench/snapshots
	rm -rf .venv-bench/exports
	$(BIN)/python tests/interop/saelens_exports.py --make .venv-bench/exports
	PYTHONPATH=. .venv-bench/bin/python tests/interop/saelens_exports.py --check .venv-bench/exports
	rm -rf .venv-bench/data
	$(BIN)/python tests/interop/saelens_data.py --make .venv-bench/data
	PYTHONPATH=. .venv-bench/bin/python tests/interop/saelens_data.py --saelens .venv-bench/data
	$(BIN)/python tests/interop/saelens_data.py --train .venv-bench/data
	rm -rf .venv-bench/peers
	.venv-bench/bin/python tests/interop/peer_formats.py --make .venv-bench/peers
	$(BIN)/python tests/interop/peer_formats.py --check .venv-bench/peers
	PYTHONPATH=. .venv-bench/bin/python tests/interop/dictionary_learning_standard.py
	rm -rf .venv-bench/transcoders
	mkdir -p .venv-bench/transcoders
	$(BIN)/python tests/interop/transcoders.py --make .venv-bench/transcoders
	PYTHONPATH=. .venv-bench/bin/python tests/interop/transcoders.py --check .venv-bench/transcoders
	if test -d runs/quickstart/best; then $(MAKE) --no-print-directory interop-quickstart; fi

# circuit-tracer pins other versions of transformers and huggingface-hub.
.venv-circuit/stamp: constraints.txt
	test -x .venv-circuit/bin/python || $(PYTHON) -m venv .venv-circuit
	.venv-circuit/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 circuit-tracer==0.5.0 nnsight==0.6.3
	touch $@

interop-circuit-tracer: $(VENV)/run.stamp .venv-circuit/stamp  ## circuit-tracer loads sets of transcoders, and attributes with them
	rm -rf .venv-circuit/sets
	mkdir -p .venv-circuit/sets
	$(BIN)/python tests/interop/circuit_tracer_sets.py --make .venv-circuit/sets
	.venv-circuit/bin/python tests/interop/circuit_tracer_sets.py --check .venv-circuit/sets

interop-quickstart: $(VENV)/run.stamp .venv-bench/stamp  ## SAELens loads every SAE of the quickstart and computes the same; its snippets in docs/ work
	$(BIN)/python tests/interop/real_activations.py runs/quickstart .venv-bench/quickstart.safetensors > .venv-bench/folders
	PYTHONPATH=. .venv-bench/bin/python tests/interop/saelens_parity.py --activations .venv-bench/quickstart.safetensors $$(sed 's/^/--folder /' .venv-bench/folders)
	PYTHONPATH=. .venv-bench/bin/python tests/interop/saelens_docs.py runs/quickstart

clean:
	rm -rf $(VENV) .venv-bench .venv-circuit .venv-triton .venv-minimal .pytest_cache .mypy_cache .ruff_cache site
