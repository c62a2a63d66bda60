"""Guards of what statements are and read: without them, the tests of it fail. `tests/test_guards.py` runs these."""

from __future__ import annotations

import pytest

from cumulet.db import schema
from cumulet.network import filtering, security_group_rules
from tests.every_operation import test_full_projects, test_many_values
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


@without(test_full_projects.test_what_a_project_has_makes_no_transaction_long, "that a request reads a group once")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    create = security_group_rules.create_rule
    patch.setattr(security_group_rules, "create_rule", lambda call, new, _known: create(call, new))
    (operation,) = [one for one in test_full_projects.SEVERAL if one.name == "create_security_group_rules"]
    with test_full_projects.cloud_with_full_project() as full, test_full_projects.counted(patch) as work:
        test_full_projects.test_what_a_project_has_makes_no_transaction_long(full, operation, work)


@without(
    test_many_values.test_many_values_are_no_error_of_ours_and_no_long_statement, "that many values are one parameter"
)
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    patch.setattr(filtering, "one_of", lambda column, values: column.in_(list(values)))
    (case,) = [case for case in test_many_values.LISTS if str(case) == "network GET /metering/metering-labels"]
    test_many_values.test_many_values_are_no_error_of_ours_and_no_long_statement(stage, case, patch)
