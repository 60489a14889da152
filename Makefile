# Two commands: `make demo` and `make test`. Both make a virtual environment, build and install first.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SOURCES = pyproject.toml CMakeLists.txt $(shell find csrc src -type f -not -name '*.pyc' -not -name '*.so')

NETWORKS = vgg16 resnet50 mobilenet_v2 efficientnet_lite0 mlp
PRESETS = epsilon_plus epsilon_plus_flat epsilon_alpha2_beta1 epsilon_gamma_box

FUZZ_SECONDS ?= 600

.PHONY: demo test quick lint bench fuzz sanitize sanitize-threads soak wheel clean

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

# The machine's limits; the table against onnxruntime, zennit and captum; where the time goes; then every kernel, and
# one layer with each rule. NETWORKS=mlp BENCH_ARGS="--repeats 1" PYTEST_ARGS="-k gemm" measure less.
bench: $(VENV)/.bench
	mkdir -p build/bench
	$(BIN)/python bench/roofline.py --json build/bench/roofline.json
	$(BIN)/python bench/compare.py --networks $(NETWORKS) --composite $(PRESETS) --numba --processes \
		--json build/bench/compare.json --chart build/bench/compare.png $(BENCH_ARGS)
	$(BIN)/python bench/where.py --networks $(NETWORKS)
	$(BIN)/python -m pytest bench -m "not networks" --benchmark-columns=median,iqr,rounds \
		--benchmark-json=build/bench/kernels.json $(PYTEST_ARGS)

# Files from strangers, made up for so long: see SECURITY.md. FUZZ_ARGS="--only model" fuzzes one of the properties.
fuzz: $(VENV)/.fuzz
	$(BIN)/python fuzz/run.py --seconds $(FUZZ_SECONDS) $(FUZZ_ARGS)

# The C++ under the sanitizers of GCC: addresses and undefined behaviour; data races. Any finding fails.
sanitize: $(VENV)/.sanitizers
	$(BIN)/python tests/sanitized.py sanitize $(PYTEST_ARGS)

sanitize-threads: $(VENV)/.sanitizers
	$(BIN)/python tests/sanitized.py threads $(PYTEST_ARGS)

# Ten thousand explanations, ten minutes of many threads, and a large job: what grows, and what is left behind.
soak: $(VENV)/.tools
	$(BIN)/python bench/soak.py --update docs/reliability.md $(SOAK_ARGS)

# Into dist/: the sdist, a wheel for each Python here and one without the C++ kernels, each tried without a compiler.
# WHEEL_ARGS=--here leaves out the other Pythons.
wheel: $(VENV)/.wheel
	$(BIN)/python scripts/wheels.py $(WHEEL_ARGS)

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

$(VENV)/.sanitizers: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group test --group sanitizers
	touch $@

$(VENV)/.bench: $(VENV)/.tools
	$(BIN)/python -m pip install --quiet --group bench
	touch $@

$(VENV)/.wheel: $(VENV)/.pip
	$(BIN)/python -m pip install --quiet --group wheel
	touch $@

$(VENV)/.fuzz: $(VENV)/.tools
	$(BIN)/python -m pip install --quiet --group fuzz
	touch $@

clean:
	rm -rf $(VENV) build dist .cache demo.png
