PYTHON ?= python3
VENV := .venv/bin
READY := .venv/.ready
BENCHES := pixels_per_second ode_solvers ode_memory invertible_memory invertible_steps overlap_tiles
export OMP_NUM_THREADS ?= 2
DATA ?= bundles/nuclei_microscopy_segmentation/data

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile

$(READY): setup.cfg constraints.txt
	$(PYTHON) -m venv .venv
	$(VENV)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,export,memcnn,track,tune]'
	echo $(CURDIR) > $$($(VENV)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/repository.pth  # tools, studies
	touch $(READY)

setup: $(READY)  ## make .venv, a virtual environment with the tested versions

demo: $(READY)  ## train, evaluate and infer on phantoms: make demo BUNDLE=<name>; one to two minutes
	$(VENV)/python -m tools.demo $(or $(BUNDLE),membrane_em_segmentation)

PYTEST = OMP_NUM_THREADS=1 $(VENV)/python -m pytest -n 2 --dist loadgroup -m

test: $(READY)  ## run the quick tests (tier 1), offline and without a GPU: about five minutes on two cores
	$(PYTEST) "not slow and not gpu and not consumer"

test-all: $(READY)  ## run all tests (tiers 1 and 2): every bundle through every step, without a GPU
	$(PYTEST) "not gpu and not consumer"

test-slow: $(READY)  ## run only the slow tests (tier 2), or those in TESTS=<paths>
	$(PYTEST) "slow and not gpu and not consumer" $(TESTS)

lint: $(READY)  ## check style and types
	$(VENV)/ruff check . && $(VENV)/ruff format --check .
	$(VENV)/mypy

bench: $(READY)  ## measure speed and memory, as ratios within one run
	for name in $(BENCHES); do $(VENV)/python -m tools.bench.$$name || exit 1; done

tune: $(READY)  ## search hyperparameters of the nuclei bundle: make tune DATA=<folder>; start it again to share the search
	$(VENV)/python -m studies.tune --dataset_dir $(DATA) $(TUNE_OPTIONS)

export: $(READY)  ## export all bundles, or BUNDLE=<name>, as TorchScript, ExportedProgram and ONNX, and compare
	$(VENV)/python -m tools.export $(BUNDLE)

zoo: $(READY)  ## pack all bundles, or BUNDLE=<name>, for the model zoo and test the zips: dist/zoo
	$(VENV)/python -m tools.zoo $(BUNDLE) $(ZOO_OPTIONS)

.venv-label/.ready .venv-deploy/.ready: .venv-%/.ready: tests/consumers/%.txt tools/consumers.py setup.cfg | $(READY)
	$(VENV)/python -m tools.consumers $*

test-label: $(READY) .venv-label/.ready  ## serve, use and train every bundle with MONAI Label, in .venv-label (4 GB)
	OMP_NUM_THREADS=1 $(VENV)/python -m pytest -m consumer tests/consumers/test_monai_label.py

test-deploy: $(READY) .venv-deploy/.ready  ## run model.ts of every bundle with MONAI Deploy, in .venv-deploy (4 GB)
	OMP_NUM_THREADS=1 $(VENV)/python -m pytest -m consumer tests/consumers/test_monai_deploy.py

clean:  ## remove environments, caches and outputs of the targets above
	rm -rf .venv .venv-label .venv-deploy runs dist build *.egg-info .pytest_cache .ruff_cache .mypy_cache

.PHONY: help setup demo test test-all test-slow lint bench tune export zoo test-label test-deploy clean
