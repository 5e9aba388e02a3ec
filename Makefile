# Every target makes what it needs: a virtual environment in .venv, an up-to-date pip, the packages.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := keras_bn export models

.PHONY: demo test slow onednn lint docs bench oldest versions wheel release clean

demo: $(VENV)/.demo
	$(BIN)/keras-bn demo

# Most of a test's time is one thread's: two workers take half of it, and 2 GB each. The tests of a
# file stay together, because they share what is trained or exported once.
test: $(VENV)/.test
	$(BIN)/pytest -m "not slow" --numprocesses 2 --dist loadfile

# Files as they are listed: by the number of their tests, those of one long test would come last, and
# one worker would wait for the other.
slow: $(VENV)/.test
	$(BIN)/pytest -m slow --numprocesses 2 --dist loadfile --no-loadscope-reorder

# TensorFlow computes by oneDNN or by Eigen, as the CPU has it; what depends on that passes with both.
# `make test` runs it with the one that is on here, this with the other.
onednn: $(VENV)/.test
	TF_ENABLE_ONEDNN_OPTS=$$($(BIN)/python tests/keras_bn/tensorflow_graphs.py) \
	  $(BIN)/pytest -m "onednn and not slow" --numprocesses 2 --dist loadfile

lint: $(VENV)/.lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(PACKAGES)

# The site, in docs/_build/html. A warning is an error, such as a link that leads nowhere; what the
# worked examples print and draw is made anew where one has changed.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx --quiet --fail-on-warning -c docs -d docs/_build/doctrees . docs/_build/html

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.graph
	$(BIN)/python -m benchmarks.layer
	$(BIN)/python -m benchmarks.compiled
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.monitor
	$(BIN)/python -m benchmarks.export
	$(BIN)/python -m benchmarks.latency
	$(BIN)/python -m benchmarks.foreign

# The smoke tests with every lower bound of pyproject.toml, and with pairs of TensorFlow and Keras.
oldest:
	$(PYTHON) tests/versions.py oldest

versions:
	$(PYTHON) tests/versions.py

# Holds the kernel, and runs on this system and CPU architecture alone, with any Python 3.
wheel: $(VENV)/.pip
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

# What an index would get, checked, and each file's smoke tests in an environment of its own.
release: $(VENV)/.release
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	$(PYTHON) tests/versions.py release

clean:
	rm -rf $(VENV) .versions build dist docs/_build docs/generated *.egg-info

# A stamp file stands for a finished install; it is remade when the dependencies or the kernel change.
$(VENV)/.pip: Makefile
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

$(VENV)/.demo: $(VENV)/.pip pyproject.toml setup.py $(wildcard keras_bn/native/*.cc keras_bn/native/*.h keras_bn/native/*.inc)
	$(BIN)/python -m pip install --quiet --editable ".[demo]"
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --editable ".[demo,plots,report]" --group test
	touch $@

$(VENV)/.docs: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --group docs
	touch $@

$(VENV)/.release: $(VENV)/.pip pyproject.toml
	$(BIN)/python -m pip install --quiet --group release
	touch $@

$(VENV)/.bench: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --group bench
	touch $@

$(VENV)/.lint: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --group lint
	touch $@
