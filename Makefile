# Each target is sufficient on a fresh clone: it makes .venv, installs into it, and runs.
PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo test check bench fidelity clean

demo: $(INSTALLED)
	$(BIN)/edgekd distill examples/teacher.onnx --out runs/demo --overwrite --seed 0
	$(BIN)/edgekd export runs/demo --int8
	@echo "After the fact, on labelled images that the distillation never saw:"
	$(BIN)/edgekd eval runs/demo --data examples/evaluation.npz
	$(BIN)/edgekd bench runs/demo --target cpu
	$(BIN)/edgekd eval runs/demo --no-data --teacher-accuracy 0.9315
	$(BIN)/edgekd report runs/demo --budget examples/budget.toml --class-names examples/classes.txt
	$(BIN)/edgekd gate runs/demo --budget examples/budget.toml

test: $(INSTALLED)
	$(BIN)/pytest -n 2

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 -m "not slow" tests/unit

bench: $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[benchmarks]"
	$(BIN)/python benchmarks/first_light.py
	$(BIN)/python benchmarks/distill/run.py
	$(BIN)/python benchmarks/distill/two_cores.py

# The last command says by its exit code whether a calibration may be shipped; that it may not is a result.
fidelity: $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[benchmarks]"
	$(BIN)/python benchmarks/teachers.py mnist-bn vit mobile cifar10-lenet digits letters letters-lenet greek signs sounds streets --missing
	$(BIN)/python benchmarks/fidelity/measure.py
	-$(BIN)/python benchmarks/fidelity/fit.py

# torch goes first and alone: where the package index has a CPU build, this is the place to ask for it.
$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[distill,dev,docs]"
	touch $@

clean:
	rm -rf .venv dist build
