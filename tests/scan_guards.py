"""Guards of what changes may read: without one index, the tests of it fail. `tests/test_guards.py` runs these."""

from __future__ import annotations

import pytest

from cumulet.db import schema
from tests.every_operation import test_scans as of_operations
from tests.every_operation.asking import Stage
from tests.every_operation.test_transactions import WRITES
from tests.every_saga import stage as saga_stage
from tests.every_saga import test_scans as of_sagas
from tests.guards import without


def _without_index(patch: pytest.MonkeyPatch, stage: Stage, name: str) -> None:
    recorded = stage.cloud.embedded.settings.state_dir / "schema.sql"
    lines = schema.RECORDED.read_text(encoding="utf-8").splitlines(keepends=True)
    recorded.write_text("".join(line for line in lines if f"INDEX {name} " not in line))
    patch.setattr(schema, "RECORDED", recorded)


@without(of_operations.test_no_change_reads_a_whole_table, "an index")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    _without_index(patch, stage, "ix_subnets_network_id")
    (case,) = [case for case in WRITES if str(case) == "network DELETE /networks/{network_id}"]
    of_operations.test_no_change_reads_a_whole_table(stage, case, patch)


@without(of_sagas.test_no_step_reads_a_whole_table, "an index")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    _without_index(patch, stage, "ix_ports_server_id")
    made = saga_stage.Stage()
    try:
        of_sagas.test_no_step_reads_a_whole_table(made, "power", patch)
    finally:
        made.end()
