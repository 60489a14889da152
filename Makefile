# Two commands: `make demo` and `make test`. Both make a virtual environment, build and install first.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SOURCES = pyproject.toml CMakeLists.txt $(shell find csrc src -type f -not -name '*.pyc' -not -name '*.so')

.PHONY: demo test quick lint bench clean

demo: $(VENV)/.installed
	$(BIN)/lrpfast demo -o demo.png

test: $(VENV)/.tools
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# Everything but the whole networks that are compared with other packages.
quick: $(VENV)/.tools
	$(BIN)/python -m pytest -m "not networks" $(PYTEST_ARGS)

lint: $(VENV)/.tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.tools
	$(BIN)/python -m pytest bench --benchmark-columns=median,iqr,rounds

$(VENV)/.pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	touch $@

$(VENV)/.installed: $(VENV)/.pip $(SOURCES)
	$(BIN)/python -m pip install --quiet .
	touch $@

$(VENV)/.tools: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group test --group lint --group peers
	touch $@

clean:
	rm -rf $(VENV) build dist .cache demo.png
