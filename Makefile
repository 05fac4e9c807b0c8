# Everything happens in $(VENV); nothing outside the repository is changed.
PYTHON ?= python3
VENV ?= .venv

INTEGRATIONS := langchain llama-index sentence-transformers
PROJECTS := pyproject.toml $(INTEGRATIONS:%=integrations/%/pyproject.toml)
SOURCES := src $(INTEGRATIONS:%=integrations/%/src) scripts benchmarks
RUN := "$(VENV)"/bin/python -m
# Each of the processes takes half of the files, and what the other has left when it is done.
PYTEST = $(RUN) pytest -q --numprocesses $(WORKERS) --dist worksteal
WORKERS ?= 2
STAMP := $(VENV)/.installed
PIP := -m pip install -q --disable-pip-version-check
# Peers and references run in environments of their own: they pin other versions.
ENVS := .benchmarks/environments

# What `test-newest` and `test-lowest` run: loading, golden cases, the encoder, the integrations.
SHORT := tests/test_golden.py tests/checkpoint/test_loading.py tests/test_encoder.py integrations
SHORT_TOOLS := pytest pytest-asyncio pytest-socket pytest-xdist langchain-tests

.PHONY: demo docs test test-fast test-newest test-lowest test-hosts real check release format bench bench-reference bench-gpu clean

# Search real passages with the model that comes with the package.
demo: $(STAMP)
	"$(VENV)"/bin/llm-embeddings demo

# All tests, offline. LLM_EMBEDDINGS_GOLDEN=DIR runs the golden cases of DIR, not the bundled ones.
test: $(STAMP)
	$(PYTEST)

# The inner loop: those that take neither processes of their own nor seconds.
test-fast: $(STAMP)
	$(PYTEST) -m "not slow"

# A selection of the tests with the newest of everything, but for torch: its builds for CPUs.
test-newest: $(ENVS)/newest/.installed
	$(<D)/bin/python -m pytest -q -m "not slow" $(SHORT)

# The same with the lowest versions that the pyproject files declare.
test-lowest: $(ENVS)/lowest/.installed
	$(<D)/bin/python -m pytest -q -m "not slow" $(SHORT)

# Clients, databases and frameworks of others, with their real packages; Spark needs Java.
test-hosts: $(ENVS)/hosts/.installed
	$(<D)/bin/python -m pytest -q -o filterwarnings=default tests/hosts

# A published language model through every part; it is fetched once (93 MB). Without network it is
# skipped, or with REAL=--required an error.
real: $(STAMP)
	"$(VENV)"/bin/python scripts/real.py $(REAL)

# Lint, format and strict types, without changing a file.
check: $(STAMP)
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy --strict $(SOURCES)

# Build all distributions, look inside, try each in an environment of its own.
# RELEASE="--dist dist" keeps them.
release: $(STAMP)
	"$(VENV)"/bin/python scripts/check_release.py $(RELEASE)

# Rewrite the sources in the house format.
format: $(STAMP)
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

# The documentation site, into site/; any warning fails. `mkdocs serve` in $(VENV) shows it.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict

# Speed and memory against peers, on this machine. BENCH="--quick" and more: benchmarks/README.md.
bench: $(ENVS)/peers/.installed
	$(ENVS)/peers/bin/python -m benchmarks.run $(BENCH)

# The same against the loops of llm2vec, gritlm and FlagEmbedding.
bench-reference: $(foreach e,peers gritlm llm2vec flagembedding,$(ENVS)/$(e)/.installed)
	$(ENVS)/peers/bin/python -m benchmarks.run --workloads reference $(BENCH)

# Golden cases on CUDA, then a 7B-shaped model in bfloat16.
bench-gpu: $(ENVS)/peers/.installed
	$(ENVS)/peers/bin/python -m benchmarks.gpu $(BENCH)

clean:
	rm -rf site "$(VENV)" .mypy_cache .pytest_cache .ruff_cache .benchmarks

# Installs again only when the pinned versions, a pyproject.toml or the version change.
$(STAMP): constraints.txt tests/no-deps.txt $(PROJECTS) src/llm_embeddings/__init__.py
	$(PYTHON) -m venv "$(VENV)"
	"$(VENV)"/bin/python $(PIP) -c constraints.txt -e ".[dev]" $(INTEGRATIONS:%=-e integrations/%)
	"$(VENV)"/bin/python $(PIP) --no-deps -r tests/no-deps.txt
	touch "$@"

# vcrpy, which langchain-tests brings, fails on aiohttp 3.14: both environments take an older one.
$(ENVS)/newest/.installed: $(PROJECTS)
	$(PYTHON) -m venv $(@D)
	grep "^torch==" constraints.txt > $(@D)/constraints.txt
	$(@D)/bin/python $(PIP) --upgrade -c $(@D)/constraints.txt -e ".[train]" \
		$(INTEGRATIONS:%=-e integrations/%) -e "integrations/langchain[cache]" \
		datasets "aiohttp<3.14" $(SHORT_TOOLS)
	touch $@

$(ENVS)/lowest/.installed: $(PROJECTS) constraints.txt scripts/floors.py
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) --upgrade pip
	$(PYTHON) scripts/floors.py > $(@D)/constraints.txt
	$(@D)/bin/python $(PIP) -c $(@D)/constraints.txt -e ".[train]" \
		$(INTEGRATIONS:%=-e integrations/%) -e "integrations/langchain[cache]" \
		datasets "aiohttp<3.14" $(SHORT_TOOLS)
	touch $@

# litellm and haystack want another certifi, and litellm's botocore another python-dateutil.
$(ENVS)/hosts/.installed: $(PROJECTS) constraints.txt tests/hosts/requirements.txt
	$(PYTHON) -m venv $(@D)
	grep -v "^\(certifi\|python-dateutil\)==" constraints.txt > $(@D)/constraints.txt
	$(@D)/bin/python $(PIP) -c $(@D)/constraints.txt -e ".[parquet,serve]" \
		$(INTEGRATIONS:%=-e integrations/%) -r tests/hosts/requirements.txt \
		httpx pandas $(SHORT_TOOLS)
	touch $@

$(VENV)/.docs: $(STAMP)
	"$(VENV)"/bin/python $(PIP) -c constraints.txt -e ".[docs]"
	touch "$@"

$(ENVS)/peers/.installed: constraints.txt $(PROJECTS) $(wildcard benchmarks/requirements/peers*.txt)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) -c constraints.txt -e ".[dev]" $(INTEGRATIONS:%=-e integrations/%) \
		-r benchmarks/requirements/peers.txt
	$(@D)/bin/python $(PIP) --no-deps -r benchmarks/requirements/peers-no-deps.txt
	touch $@

$(ENVS)/gritlm/.installed: constraints.txt benchmarks/requirements/gritlm.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) -c constraints.txt torch transformers accelerate
	$(@D)/bin/python $(PIP) --no-deps -r benchmarks/requirements/gritlm.txt
	touch $@

$(ENVS)/llm2vec/.installed: benchmarks/requirements/llm2vec.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) -r $<
	touch $@

$(ENVS)/flagembedding/.installed: benchmarks/requirements/flagembedding.txt constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) -c constraints.txt -r $<
	touch $@
