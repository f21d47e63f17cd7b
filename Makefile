# PORT, HOST, REDIS_URL and DATA_DIR may be given as variables (make run PORT=9000) or in the environment.
MODEL ?= fmnist-cnn
PYTHON ?= python3.11
SECONDS ?= 1200
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help run demo test test-deploy test-changed coverage bench guard chaos fuzz doctor sbom supply lint train docs pictures deploy-tools clean
.DEFAULT_GOAL := help

help: ## Show the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

run: .venv/run ## Start Redis (embedded), the API on port 8000 and a worker; Ctrl-C stops them
	@exec $(BIN)/python -m deploy.local

demo: .venv/run ## Submit the sample pictures to what `make run` started
	@url=$${DARKROOM_URL:-http://$${HOST:-127.0.0.1}:$${PORT:-8000}}; $(BIN)/darkroom --url "$$url" classify --format table --new tests/data/*.png

# The tests of a file run in one process: they share servers that are slow to start. Tests of whole stacks run last and
# alone: some of them check how long things take. Files start in the order of tests/conftest.py, the long ones first.
test: .venv/dev ## Run all tests, as many files side by side as there are cores
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
	  --ignore tests/e2e
	$(BIN)/python -m pytest tests/e2e

test-deploy: .venv/dev ## Run the tests of EC2 hosts in containers: minutes, and a Docker engine
	$(BIN)/python -m pytest -m deploy tests/e2e

test-changed: .venv/dev ## Run the tests of the parts that changed since main: the inner loop; or PARTS="api/uploads"
	@$(BIN)/python -m tests.changed $(PARTS)

coverage: .venv/dev ## Run all tests one after the other, and show which lines and branches they reach
	$(BIN)/python -m pytest --cov --cov-report=term

bench: .venv/dev .venv-bench ## Measure throughput, latency and CPU beside common designs; about 40 minutes
	$(BIN)/python -m bench
	$(BIN)/python -m bench.bulk command
	$(BIN)/python -m bench.page
	$(BIN)/python -m pretrained imagenet
	$(BIN)/python -m bench.networks

guard: .venv/dev ## Check that the service has not become slower; half a minute, relative to the machine
	$(BIN)/python -m bench.guard

chaos: .venv/dev ## Inject faults under load and check that no result is lost; about 25 minutes, or make chaos SECONDS=90
	$(BIN)/python -m chaos --seconds $(SECONDS)

fuzz: .venv/dev .venv/fuzz ## Fuzz the parsers, ten minutes each: eighty minutes; or make fuzz FUZZ="tar zip"
	$(BIN)/python -m fuzz $(FUZZ)

doctor: .venv/run ## Look at disk, Redis' file, clock, versions, keys and certificate of what runs, and say what to do
	@$(BIN)/python -m deploy.local.doctor

sbom: .venv/dev .venv-supply ## Write the parts and licences of the images into sbom/, as CycloneDX
	@.venv-supply/bin/python -m deploy.sbom $(BIN)/python

supply: .venv-supply ## Lint the Dockerfiles, and audit the workflow of .github/
	.venv-supply/bin/hadolint Dockerfile.api Dockerfile.worker deploy/redis/Dockerfile deploy/edge/Dockerfile
	.venv-supply/bin/zizmor --offline --no-progress .github/workflows

lint: .venv/dev ## Check style, types and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

train: .venv/dev ## Train a model package: make train MODEL=fmnist-cnn
	$(BIN)/python -m training $(MODEL)

docs: .venv/dev ## Build the pages of docs/ as a site in site/; fails at a link or an anchor that leads nowhere
	$(BIN)/zensical build --clean --strict

pictures: .venv/dev ## Take the pictures of the page in docs/pictures/ anew, in Debian's chromium
	$(BIN)/python -m docs.page_pictures

deploy-tools: .venv/deploy ## Install what `python -m deploy.ec2` needs (docs/EC2.md)

clean: ## Remove .venv, .venv-bench, .venv-supply, data, site and sbom, which the commands above created
	rm -rf .venv .venv-bench .venv-supply data site sbom

# torch is installed alone, as each index has another build of it, and last: what it needs is there by then, checked by
# its hashes.
.venv/%: requirements/%.txt requirements/torch.txt client/pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes --requirement $<
	@case $* in run|dev) $(BIN)/python -m pip install --quiet --requirement requirements/torch.txt;; esac
	$(BIN)/python -m pip install --quiet --no-deps --editable client
	@touch $@

.venv-supply: requirements/supply.txt
	test -x .venv-supply/bin/python || $(PYTHON) -m venv .venv-supply
	.venv-supply/bin/python -m pip install --quiet --require-hashes --requirement $<
	@touch $@

# LitServe and BentoML need other versions than .venv has.
.venv-bench: requirements/bench.txt requirements/torch.txt
	test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --require-hashes --requirement $<
	.venv-bench/bin/python -m pip install --quiet --requirement requirements/torch.txt
	@touch $@
