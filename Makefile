# Everything runs in .venv, which is made by the first command that needs it. Only Python 3.11+ and make are asked for.
PYTHON ?= python3
VENV := .venv
UV := $(VENV)/bin/uv
RUN := $(VENV)/bin/python

.PHONY: demo test check loop chaos lock clean

MINUTES ?= 10
SEED ?= 0

demo: $(VENV)/core
	$(RUN) -m examples.demo

test: $(VENV)/dev
	$(RUN) -m pytest

# Curate, train with three seeds, sample, measure: two to three hours on two quiet cores. The short version is `.venv/bin/python -m examples.loop --short`.
loop: $(VENV)/dev
	$(RUN) -m examples.loop

# Real runs in a storm of faults; the disk is filled only where this user may mount a small one.
chaos: $(VENV)/dev
	$(RUN) -m tests.chaos.storm --minutes $(MINUTES) --seed $(SEED)

check: $(VENV)/dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(RUN) -m mypy

$(UV):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet uv

$(VENV)/core: pyproject.toml requirements.lock | $(UV)
	$(UV) pip install --quiet --compile-bytecode --python $(RUN) --constraint requirements.lock --editable .
	touch $@

# facenet-pytorch is what face similarity is checked against; its own pins are years old, all that it needs is there.
$(VENV)/dev: pyproject.toml requirements.lock | $(UV)
	$(UV) pip install --quiet --compile-bytecode --python $(RUN) --constraint requirements.lock --editable '.[dev,export,paper,s3,train,view]'
	$(UV) pip install --quiet --compile-bytecode --python $(RUN) --no-deps facenet-pytorch==2.6.0
	touch $@ $(VENV)/core

lock: | $(UV)
	$(UV) pip compile --quiet --universal --all-extras --no-annotate pyproject.toml --output-file requirements.lock

clean:
	rm -rf $(VENV) runs build dist
