# Everything starts here, from a fresh clone with Python >= 3.11 and nothing else prepared.
SHELL := /bin/bash
.DEFAULT_GOAL := help

DRIVER ?= auto
SEED ?= 1
STEPS ?= 25
COUNT ?= 1000
CLOUDS ?= 20
RUNS ?= 12
RESULTS ?=
POST_COPY ?=
PYTEST_ARGS ?=
# Of the tests. Those with real guests wait a lot: three processes keep two cores busy.
PROCESSES ?= 3
TEMPEST_RUN ?=
RUNNER ?=
IMAGE ?=
IMAGE_USER ?=
FLEET_ARGS ?=
SERVICE_ARGS ?=
SINCE ?=
MOST ?=
PARTS ?=
HOSTS ?=
TESTS ?= 2000
SECONDS ?= 3600
SUITE ?= compute-admin compute-api interop-compute-nocinder identity image network

.PHONY: $(shell sed -nE 's/^([a-z-]+):.*/\1/p' Makefile)  # no target here is a file

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup-python:
	@scripts/setup.sh
setup-qemu:
	@scripts/setup.sh qemu
setup-test:
	@scripts/setup.sh qemu test

setup: setup-qemu ## the environment in .venv from uv.lock; afterwards .venv/bin/cumulet works

demo: $(if $(filter simulated,$(DRIVER)),setup-python,setup-qemu) ## all set-up, then the main job, told step by step (DRIVER=auto|simulated|qemu)
	@.venv/bin/cumulet demo --driver $(DRIVER)

fleet: setup-test ## several machines on this one (root): joining, moves between them, a control plane killed, told step by step
	@.venv/bin/python -m tests.fleet.story $(FLEET_ARGS)

upgrade: setup-test ## a fleet of an earlier commit becomes one of this commit, a process at a time, while guests move (root)
	@.venv/bin/python -m tests.fleet.upgrade $(FLEET_ARGS)

service: setup-python ## a machine with systemd in a folder (root): installed as a service, upgraded, rebooted, saved and restored, told step by step
	@.venv/bin/python -m tests.service.story $(SERVICE_ARGS)

test: setup-test ## all set-up, then the whole test suite
	@.venv/bin/python -m pytest -n $(PROCESSES) --dist worksteal $(if $(PYTEST_ARGS),$(PYTEST_ARGS),--refusals report)

test-postgresql: setup-test ## the suite with its clouds on PostgreSQL (PYTEST_ARGS=tests/api for a part)
	@.venv/bin/python -m tests.on_postgresql $(if $(PYTEST_ARGS),$(PYTEST_ARGS),-n $(PROCESSES) --dist worksteal)

long-test: setup-test ## an outside project of TESTS tests on one cloud of `cumulet.testing`, spread over SECONDS: what is left, what grows?
	@nice .venv/bin/python -m tests.testing.long_run --tests $(TESTS) --seconds $(SECONDS)

refusals: setup-test ## the same, and it fails while there is a refusal in the source that no test comes through
	@.venv/bin/python -m pytest -n $(PROCESSES) --dist worksteal --refusals require

check: setup-python ## ruff, mypy --strict, import directions, generated files current
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy src tests benchmarks scripts
	.venv/bin/python -m pytest -q tests/test_import_directions.py tests/test_house_rules.py
	.venv/bin/python -m cumulet.web.openapi --check

generated: setup-python ## write what is generated from the registry (docs/api) anew
	.venv/bin/python -m cumulet.web.openapi --write docs/api

bench: setup-qemu ## benchmarks: a table, and bench.json
	@.venv/bin/python -m benchmarks

scale: setup-test ## what a cloud costs with 10, 100, 1,000 hosts on PostgreSQL: docs/scale.md and its curves (HOSTS="10 100")
	@.venv/bin/python -m benchmarks.scale $(HOSTS)

sim: setup-python ## one seed of the deterministic simulation (SEED=n STEPS=n)
	@.venv/bin/python -m cumulet.testing.simulation --seed $(SEED) --steps $(STEPS)

sim-many: setup-python ## many seeds from SEED on; prints failures as seed and commit (COUNT=n; LOG=file: may be stopped, and goes on there)
	@.venv/bin/python -m cumulet.testing.simulation --seed $(SEED) --count $(COUNT) --steps $(STEPS) $(if $(LOG),--log $(LOG))

planted: setup-python ## each planted mistake, from seed 0 on: the simulation has to catch it
	@CUMULET_PLANTED_FROM_ZERO=1 .venv/bin/python -m pytest tests/simulation -k planted $(PYTEST_ARGS)

packets: setup-python ## root: what is said of packets in random clouds, and what becomes of them on real hosts (CLOUDS=n of 200 packets, SEED=n)
	@CUMULET_PATHS_CLOUDS=$(CLOUDS) CUMULET_PACKETS_SEED=$(SEED) CUMULET_PACKETS_TOPOLOGIES=$$((10 * $(CLOUDS))) \
		.venv/bin/python -m pytest -s tests/linux_network/test_same_path.py tests/linux_network/test_same_verdict.py $(PYTEST_ARGS)

debian: setup-test ## build Debian's image, boot it on a network, log in to it over a floating IP (root; IMAGE=file: one that is there)
	@CUMULET_DEBIAN=$(or $(abspath $(IMAGE)),new) .venv/bin/python -m pytest -s tests/qemu/test_debian.py $(PYTEST_ARGS)

crash: setup-qemu ## real guests whose keepers are killed, cut off and frozen (RUNS=n SEED=n RESULTS=file to add lines to, POST_COPY=1)
	@CUMULET_CRASH_POST_COPY=$(POST_COPY) CUMULET_CRASH_RUNS=$(RUNS) CUMULET_CRASH_SEED=$(SEED) CUMULET_CRASH_RESULTS=$(RESULTS) \
		.venv/bin/python -m pytest -s tests/qemu/test_crash.py $(PYTEST_ARGS)

crash-fleet: setup-test ## the same on a fleet: PostgreSQL, NATS, conductors, machines killed, stopped, cut off (root; RUNS, SEED, RESULTS)
	@CUMULET_CRASH_RUNS=$(RUNS) CUMULET_CRASH_SEED=$(SEED) CUMULET_CRASH_RESULTS=$(RESULTS) \
		.venv/bin/python -m pytest -s tests/fleet/test_crash.py tests/fleet/test_crash_fenced.py $(PYTEST_ARGS)

mutants: setup-test ## small mistakes, one at a time: which do the tests let live? (SINCE=revision: on changed lines; PARTS=names, MOST=n of a module)
	@.build/uv/bin/uv --version >/dev/null 2>&1 && uv=.build/uv/bin/uv || uv=uv; \
		UV_PROJECT_ENVIRONMENT=.build/mutants-venv $$uv sync --frozen --quiet --group mutants
	@nice .build/mutants-venv/bin/python scripts/mutants.py $(if $(SINCE),--since $(SINCE)) $(if $(MOST),--most $(MOST)) $(PARTS)

killed: setup-python ## kill -9 of everything at once at random moments: nothing acknowledged is lost (RUNS=n SEED=n)
	@CUMULET_KILL_RUNS=$(RUNS) CUMULET_KILL_SEED=$(SEED) .venv/bin/python -m pytest -s tests/cli/test_killed.py $(PYTEST_ARGS)

golden: setup-python ## answers compared with those recorded from real Nova
	@.venv/bin/python -m pytest tests/conformance $(PYTEST_ARGS)

conformance: setup-python ## the same requests to Cumulet and real Nova, side by side (ORACLE=URL; default: as recorded)
	@scripts/conformance.sh $(if $(ORACLE),--oracle $(ORACLE))

tempest: setup-python ## Tempest against a cloud of simulated hosts (TEMPEST_RUN=path of its runner, SUITE=names)
	@scripts/tempest.sh "$(TEMPEST_RUN)" $(SUITE)

tempest-real: setup-qemu ## Tempest's moves, snapshots, rescue, shelving, rebuilding and consoles on QEMU guests (root; TEMPEST_RUN; IMAGE=file IMAGE_USER=name)
	@.venv/bin/python -m benchmarks.suites.real "$(TEMPEST_RUN)" $(if $(IMAGE),--image $(IMAGE)) $(if $(IMAGE_USER),--user $(IMAGE_USER))

placement-stories: setup-python ## Placement's own stories (of the package openstack-placement, from PyPI) against our service
	@scripts/suites_venv.sh openstack-placement==16.0.0 gabbi==4.2.3 oslotest wsgi-intercept
	@nice .build/suites-venv/bin/python -m benchmarks.suites.placement

client-suites: setup-test ## functional suites of openstacksdk and openstackclient (RUNNER=path of their runner, SUITE="openstacksdk openstackclient")
	@scripts/tempest.sh "$(RUNNER)" $(SUITE)

suites-page: setup-python ## docs/tempest.md anew, from what the runs of suites have left
	@.venv/bin/python -m benchmarks.suites.page

clean: ## what can be made again: .build, caches, bench.json (not .venv)
	rm -rf .build bench.json .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
