# What a person does with this repository, one line each. `make` alone says so.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PY := .venv/bin/python
# The machine without a GPU: `make up CPU=1`
# With Prometheus and Grafana: `make up MONITORING=1`
COMPOSE := docker compose -f compose.yaml $(if $(CPU),-f compose.cpu.yaml) $(if $(MONITORING),--profile monitoring)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- without containers ---
.PHONY: install demo
install: ## everything into .venv, once (redis and nginx from the system)
	@scripts/install
demo: ## the whole product on this machine, no GPU needed: train, export, chat (ARGS="--help" for more)
	@scripts/install
	@$(PY) -m services.cli demo $(ARGS)

# --- with containers ---
.PHONY: up down logs build config
up: .env ## build and start the stack, wait until one can sign in and train, print the sign-in link (CPU=1 without a GPU)
	@$(COMPOSE) up --detach --build
	@$(COMPOSE) up --detach --wait nginx trainer # inference waits for the base model, which is fetched through these
	@$(COMPOSE) logs --no-log-prefix init | tail -5
down: ## stop it; what is in the data folder stays
	@$(COMPOSE) --profile monitoring down
logs: ## follow what the services say (SERVICE=trainer for one)
	@$(COMPOSE) logs --follow --tail 100 $(SERVICE)
build: .env ## the images only
	@$(COMPOSE) build
config: .env ## what compose makes of the files and .env
	@$(COMPOSE) config
.env:
	@sed -e "s/^UID=.*/UID=$$(id -u)/" -e "s/^GID=.*/GID=$$(id -g)/" .env.example > .env && echo "Made .env from .env.example: read it once."

# --- the code ---
.PHONY: test test-stack lint format screenshots clean
test: ## lint, import rules, all tests that need no GPU and no containers
	@scripts/install test
	@$(MAKE) --no-print-directory lint
	@$(PY) -m pytest $(ARGS)
test-stack: ## the real containers: up, the chain, what they survive, down
	@scripts/install test
	@$(PY) -m pytest --timeout 1800 tests/stack $(ARGS)
lint: ## ruff and the import rules
	@$(PY) -m ruff check .
	@.venv/bin/lint-imports --no-cache --no-logo
format: ## let ruff put the code in order
	@$(PY) -m ruff check --fix --quiet . || true
	@$(PY) -m ruff format --quiet .
screenshots: ## take docs/screenshots anew from the running demo
	@scripts/install test
	@$(PY) scripts/screenshots
clean: ## remove .venv and .local: the demo's data is gone with it
	@rm -rf .venv .local
