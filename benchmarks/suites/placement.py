"""Placement's own stories (gabbi files of the package `openstack-placement`) against our service.

    python -m benchmarks.suites.placement [--only TEXT] [--words]

Stories and fixtures are read from the installed package. A fixture there writes to Placement's tables through a module
of helpers; here the same names ask our own API (`Tables`). What counts is status, headers and JSON; with --words also
the words of messages, which are ours and differ.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import socket
import sys
import threading
import time
import unittest
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace, TracebackType

import uvicorn
from gabbi import handlers, suitemaker, utils
from placement.tests.functional.fixtures import gabbits

from benchmarks.suites.results import leave, run_of
from benchmarks.suites.stage import Setting, Stage

LEAST_PERCENT = 99.0
STORIES = Path(gabbits.__file__).parents[1] / "gabbits"
ENVIRONMENT = (
    *(f"RP_{what}{n}" for what in ("UUID", "NAME") for n in ("", "1", "2")),
    *(f"{who}PROJECT_ID" for who in ("", "ADMIN_", "SERVICE_")),
    *("PROJECT_ID_ALT", "USER_ID", "USER_ID_ALT", "INSTANCE_UUID", "MIGRATION_UUID", "CONSUMER_UUID"),
    *("PARENT_PROVIDER_UUID", "ALT_PARENT_PROVIDER_UUID"),
)
"""Variables that hold an id, new for every file."""
NAMES = {f"CUSTOM_RES_CLASS{n}": f"CUSTOM_IRON_NFV{n}" for n in ("", "1", "2")}

STAGE = Stage()
SETTING = Setting(STAGE)
ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class Provider:
    """A provider as fixtures hold it."""

    def __init__(self, name: str, uuid: str) -> None:
        self.name, self.uuid = name, uuid

    def set_aggregates(self, aggregates: list[str]) -> None:
        SETTING.ask("PUT", f"/resource_providers/{self.uuid}/aggregates", list(aggregates), version="1.18")


class Outside:
    """A user or a project: no more than a name to Placement."""

    def __init__(self, context: object = None, *, external_id: str) -> None:
        self.external_id = external_id

    def create(self) -> None:
        """Nothing to do: we keep no table of them."""


class NewClass:
    """A custom resource class that a fixture makes."""

    def __init__(self, context: object, name: str) -> None:
        self._name = name

    def create(self) -> None:
        SETTING.ask("PUT", f"/resource_classes/{self._name}")


class Tables:
    """Stands in for `placement.tests.functional.db.test_base`."""

    @staticmethod
    def create_provider(
        context: object, name: str, *aggregates: str, parent: str | None = None, uuid: str | None = None
    ) -> Provider:
        provider = Provider(name, uuid or getattr(gabbits.uuids, name))
        above = {"parent_provider_uuid": parent} if parent else {}
        SETTING.ask("POST", "/resource_providers", {"name": name, "uuid": provider.uuid, **above})
        if aggregates:
            provider.set_aggregates(list(aggregates))
        return provider

    @staticmethod
    def add_inventory(provider: Provider, resource_class: str, total: int, **values: float) -> None:
        if resource_class.startswith("CUSTOM_"):
            SETTING.ask("PUT", f"/resource_classes/{resource_class}")
        body = {"resource_class": resource_class, "total": total, "max_unit": total, **values}
        SETTING.ask("POST", f"/resource_providers/{provider.uuid}/inventories", body)

    @staticmethod
    def set_traits(provider: Provider, *traits: str) -> None:
        for trait in traits:
            if trait.startswith("CUSTOM_"):
                SETTING.ask("PUT", f"/traits/{trait}")
        generation = SETTING.ask("GET", f"/resource_providers/{provider.uuid}").json()["generation"]
        body = {"traits": list(traits), "resource_provider_generation": generation}
        SETTING.ask("PUT", f"/resource_providers/{provider.uuid}/traits", body)

    @staticmethod
    def create_user_and_project(context: object, prefix: str) -> tuple[Outside, Outside]:
        return Outside(external_id=f"{prefix}-user"), Outside(external_id=f"{prefix}-project")

    @staticmethod
    def ensure_consumer(
        context: object, user: Outside, project: Outside, consumer_id: str | None = None
    ) -> SimpleNamespace:
        return SimpleNamespace(uuid=consumer_id or str(uuid.uuid4()), user=user, project=project)

    @staticmethod
    def set_allocation(context: object, provider: Provider, consumer: SimpleNamespace, used: dict[str, int]) -> None:
        body = {
            "allocations": {provider.uuid: {"resources": used}},
            "project_id": consumer.project.external_id,
            "user_id": consumer.user.external_id,
        }
        SETTING.ask("PUT", f"/allocations/{consumer.uuid}", body, version="1.12")


def _start_fixture(fixture: SimpleNamespace) -> None:
    STAGE.start(
        open_policy=isinstance(fixture, gabbits.OpenPolicyFixture),
        secure=isinstance(fixture, gabbits.SecureRBACPolicyFixture),
    )
    fixture.context = None
    os.environ.update({name: str(uuid.uuid4()) for name in ENVIRONMENT})
    os.environ.update(NAMES)


def translate_fixtures() -> None:
    """Every fixture of the package sets up our service from now on."""
    gabbits.tb = Tables
    gabbits.user_obj = gabbits.project_obj = SimpleNamespace(User=Outside, Project=Outside)
    gabbits.rc_obj = SimpleNamespace(ResourceClass=NewClass)
    for fixture in (gabbits.APIFixture, gabbits.OpenPolicyFixture, gabbits.CORSFixture):
        fixture.start_fixture = _start_fixture
        fixture.stop_fixture = lambda self: STAGE.stop()


class Outcome(unittest.TestResult):
    """Counts, and keeps why what failed failed. A test that a fixture kept from running has failed."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0
        self.failed: dict[str, str] = {}

    def addSuccess(self, test: unittest.TestCase) -> None:
        self.passed += 1

    def addFailure(self, test: unittest.TestCase, err: ExcInfo) -> None:
        self._fail(test, str(err[1]))

    def addError(self, test: unittest.TestCase, err: ExcInfo) -> None:
        self._fail(test, str(err[1]))

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._fail(test, reason)

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self._fail(test, "passes, where upstream's fails")

    def _fail(self, test: unittest.TestCase, why: str) -> None:
        story, data = type(test).__name__.partition("_")[0], getattr(test, "test_data", {})
        self.failed[f"{story}: {data.get('name', test)}"] = " ".join(why.partition(", response:")[0].split())


@contextlib.contextmanager
def serving() -> Iterator[int]:
    """The stage behind a socket; its port."""
    server = uvicorn.Server(uvicorn.Config(STAGE, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def suite_of(path: Path, port: int, *, words: bool) -> unittest.TestSuite:
    stories = utils.load_yaml(yaml_file=str(path))
    for story in stories["tests"]:
        if not words:
            story.pop("response_strings", None)
    made: unittest.TestSuite = suitemaker.test_suite_from_dict(
        unittest.TestLoader(),
        path.stem,
        stories,
        str(STORIES),
        "127.0.0.1",
        port,
        gabbits,
        None,
        handlers=[handler() for handler in handlers.RESPONSE_HANDLERS],
        test_loader_name="placement",
    )
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description="Placement's own stories against our service")
    parser.add_argument("--only", default="", help="files whose name has this in it")
    parser.add_argument("--words", action="store_true", help="the words of messages count, too")
    asked = parser.parse_args()
    translate_fixtures()
    outcome, began = Outcome(), time.monotonic()
    with serving() as port:
        for path in sorted(STORIES.glob("*.yaml")):
            if asked.only in path.stem:
                suite_of(path, port, words=asked.words).run(outcome)
    for name, why in outcome.failed.items():
        print(f"FAILED {name}: {why[:300]}")
    package = f"openstack-placement {importlib.metadata.version('openstack-placement')}"
    run = run_of("placement-stories", package, outcome.passed, outcome.failed, {}, time.monotonic() - began)
    print(f"{run.passed} passed, {len(run.failed)} failed: {run.share:.1f} %")
    if not asked.only and not asked.words:
        print(leave(run))
    return 0 if run.share >= LEAST_PERCENT else 1


if __name__ == "__main__":
    sys.exit(main())
