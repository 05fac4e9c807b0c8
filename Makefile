# Everything happens in $(VENV); nothing outside the repository is changed.
PYTHON ?= python3
VENV ?= .venv

INTEGRATIONS := langchain llama-index sentence-transformers
PROJECTS := pyproject.toml $(INTEGRATIONS:%=integrations/%/pyproject.toml)
SOURCES := src $(INTEGRATIONS:%=integrations/%/src) scripts
RUN := "$(VENV)"/bin/python -m
STAMP := $(VENV)/.installed

.PHONY: demo test check format clean

# Search real passages with the model that comes with the package.
demo: $(STAMP)
	"$(VENV)"/bin/llm-embeddings demo

# All tests, offline. LLM_EMBEDDINGS_GOLDEN=DIR runs the golden cases of DIR, not the bundled ones.
test: $(STAMP)
	$(RUN) pytest -q

# Lint, format and strict types, without changing a file.
check: $(STAMP)
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy --strict $(SOURCES)

# Rewrite the sources in the house format.
format: $(STAMP)
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

clean:
	rm -rf "$(VENV)" .mypy_cache .pytest_cache .ruff_cache .benchmarks

# Installs again only when the pinned versions or a pyproject.toml change.
$(STAMP): constraints.txt $(PROJECTS)
	$(PYTHON) -m venv "$(VENV)"
	$(RUN) pip install -q --disable-pip-version-check -c constraints.txt \
		-e ".[dev]" $(INTEGRATIONS:%=-e integrations/%)
	touch "$@"
