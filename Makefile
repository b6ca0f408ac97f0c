# Two commands to know: `make demo` and `make test`. All set up what they need in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo exporter onnx ocr wheels test compat hosts dashboards manifests lint api types types-newest format bench soak incidents clean
.DEFAULT_GOAL := help

.PHONY: help
help:
	@echo "make demo    all models on one drawn picture, through Triton, gateway and client; writes demo/demo.png"
	@echo "make exporter  install what \`visiongate export\` needs: PyTorch and the model libraries, 5 GB"
	@echo "make onnx    install what \`visiongate export\` needs for ready ONNX files alone: no PyTorch, 0.1 GB"
	@echo "make ocr     the same, and the package that ships PP-OCR's networks"
	@echo "make wheels  build the client and the server into dist/"
	@echo "make test    all tests"
	@echo "make compat  the unmodified packages of others that the HTTP front answers, each in a venv of its own; hostile callers, and memory"
	@echo "make ray     Ray Data and Hugging Face datasets, in a venv of their own, ask a gateway (0.7 GB)"
	@echo "make hosts   edge, gateways and Tritons on hosts of their own, and what befalls them; needs root, takes ten minutes"
	@echo "make images  the images of deploy/docker, built by buildah, and what they hold and do; root, and 5 GB"
	@echo "make lint    formatting, lint, types, import contracts, the API's rules and compatibility"
	@echo "make dashboards  renew Grafana's dashboards in the chart"
	@echo "make format  rewrite the code as lint wants it"
	@echo "make api     renew proto/api.binpb, against which lint looks for changes that break callers"
	@echo "make manifests  renew the chart's schema of values and the plain manifest, after a change of the chart or of a setting"
	@echo "make bench   nine minutes of speed: ratios to Triton alone, and to FastAPI, LitServe and Ray Serve (0.4 GB more)"
	@echo "make soak    an hour of overload, of bad company and of mixed traffic: does the gateway hold, does it leak"
	@echo "make incidents  ten minutes of what operators meet: is the cause found, does the alert fire?"
	@echo "make clean   remove all that these commands made"

# What serving needs, and the demo: no PyTorch.
.venv/gateway: requirements.lock pyproject.toml proto/pyproject.toml proto/hatch_build.py $(wildcard proto/visiongate/v1/*.proto proto/google/rpc/*.proto)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "$$(grep '^uv==' requirements.lock)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable ./proto --editable .
	touch $@

# What exporting needs too: PyTorch and the model libraries.
.venv/exporter: .venv/gateway
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable ./proto --editable '.[export,heic]'
	touch $@

# What exporting needs for ready ONNX files: no PyTorch.
.venv/onnx: .venv/gateway
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable ./proto --editable '.[onnx]'
	touch $@

# The same, and the package that ships PP-OCR's networks.
.venv/ocr: .venv/gateway
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable ./proto --editable '.[ocr]'
	touch $@

# What the tests need too: all that is pinned.
.venv/installed: .venv/gateway
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --requirements requirements.lock
	touch $@

demo: .venv/gateway
	$(BIN)/visiongate demo --save demo/demo.png

exporter: .venv/exporter

onnx: .venv/onnx

ocr: .venv/ocr

wheels: .venv/gateway
	$(BIN)/uv build --quiet --wheel --out-dir dist proto
	$(BIN)/uv build --quiet --wheel --out-dir dist .

test: .venv/installed
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m 'not long'

# The SDK asks for opencv-python, which pyproject.toml's overrides leave out: the headless one does as well.
build/compat/%/installed: .venv/installed
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(@D)
	$(BIN)/uv pip install --quiet --python $(@D)/bin/python inference-sdk==$* 'opencv-python-headless<=4.13'
	touch $@

COMPAT := hostile memory

# All of them run, whatever one misses. For one of them without the packages of others: make compat-memory
compat: .venv/installed build/compat/1.8.3/installed build/compat/1.2.7/installed
	@missed=; $(BIN)/python -m pytest tests/compat/sdks.py || missed=" sdks"; \
	for script in $(COMPAT); do \
		$(MAKE) --no-print-directory compat-$$script || missed="$$missed $$script"; \
	done; if [ -n "$$missed" ]; then echo "missed:$$missed"; exit 1; fi

compat-%: .venv/installed
	@echo "== $*"; PYTHONPATH=tests $(BIN)/python -m compat.$*

RAY := 2.60.0

build/ray/$(RAY): .venv/installed
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python build/ray
	$(BIN)/uv pip install --quiet --python build/ray/bin/python 'ray[data]==$(RAY)' datasets==5.2.0 --editable './proto[batch]'
	touch $@

.PHONY: ray
ray: .venv/installed build/ray/$(RAY)
	$(BIN)/python -m pytest tests/ray_data/jobs.py

# All faults, or some: make hosts HOSTS=kill-gateway,cut-triton
hosts: .venv/installed
	@PYTHONPATH=tests $(BIN)/python -m hosts --only "$(HOSTS)"

CHECKOV := 3.3.30

build/checkov/$(CHECKOV): .venv/installed
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python build/checkov
	$(BIN)/uv pip install --quiet --python build/checkov/bin/python checkov==$(CHECKOV)
	touch $@

# The containers have ports and a loopback of their own, and no other network.
.PHONY: images
images: .venv/installed build/checkov/$(CHECKOV)
	PYTHONPATH=tests $(BIN)/python -m images.policies build/checkov/bin/checkov
	PYTHONPATH=tests $(BIN)/python -m images.build
	unshare --net sh -c 'ip link set lo up && exec $(BIN)/python -m pytest -rA \
		tests/images/contents.py tests/images/serving.py tests/images/faults.py'

# After a change of the chart, or of the gateway's settings.
manifests: .venv/installed
	$(BIN)/python deploy/helm/schema.py
	$(BIN)/python deploy/manifests/render.py "$$(PYTHONPATH=tests $(BIN)/python -m helm)"

# After a change of deploy/grafana.
dashboards: .venv/installed
	$(BIN)/python -m deploy.grafana.dashboards

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(MAKE) --jobs 2 types types-newest
	$(BIN)/lint-imports
	$(BIN)/buf lint proto
	$(BIN)/hadolint deploy/docker/*.Dockerfile
	$(BIN)/buf breaking proto --against proto/api.binpb

# Callers rely on the API as this file has it. Renew it only to add to the API, or with a reason.
api: .venv/installed
	$(BIN)/buf build proto --exclude-source-info --output proto/api.binpb

# Of the oldest Python that is supported, and of the newest for what others install.
types: .venv/installed
	$(BIN)/mypy

types-newest: .venv/installed
	$(BIN)/mypy --python-version 3.13 gateway proto/visiongate

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# With a repository that has a full CLIP, too: make bench FULL=DIR
bench: .venv/installed
	@mkdir -p build
	$(BIN)/visiongate bench --rounds 3 --json build/bench.json
	PYTHONPATH=tests $(BIN)/python -m bench.peers.compare $(if $(FULL),--full "$(FULL)") \
		--json build/comparison.json --markdown build/comparison.md --picture tests/bench/comparison.png

SOAK := long gaps incidents overload peers hostile poison stream endurance resume batch

# All of them run, whatever one misses. For one of them: make soak SOAK=peers
soak: .venv/installed
	@missed=; for script in $(SOAK); do \
		echo "== $$script"; PYTHONPATH=tests $(BIN)/python -m soak.$$script || missed="$$missed $$script"; \
	done; if [ -n "$$missed" ]; then echo "missed:$$missed"; exit 1; fi

incidents:
	@$(MAKE) --no-print-directory soak SOAK=incidents

clean:
	rm -rf .venv build demo dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	rm -f proto/visiongate/v1/*_pb2*.py proto/visiongate/v1/*_pb2*.pyi proto/visiongate/v1/descriptors.binpb
