"""The simulation: a seed gives one story, the product breaks no invariant, and planted mistakes are found."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from cumulet.testing.simulation import many
from cumulet.testing.simulation.__main__ import commit
from cumulet.testing.simulation.many import OtherRuns, run_block, run_many, summary
from cumulet.testing.simulation.planted import PLANTED, planted
from cumulet.testing.simulation.run import SETTLING_SECONDS, run
from cumulet.testing.simulation.shrinking import shrink

STEPS = 25
SEEDS = int(os.environ.get("CUMULET_SIMULATION_SEEDS", "500"))
SEEDS_PER_TEST = 100
CAUGHT_WITHIN = 2000
FAR = 100
"""Seeds that a search goes through in vain before the test asks for a better beginning: some ten seconds."""

FIRST_SEED: dict[str, int] = {
    "a_lease_by_two_wall_clocks": 133,
    "a_lease_from_when_it_was_asked": 413,
    "a_lease_without_a_margin": 287,
    "a_networks_policy_before_its_ports": 176,
    "a_policy_of_others": 87,
    "acting_on_an_expired_lease": 92,
    "believing_an_exception": 1642,
    "booting_from_disk_beside_the_source": 2106,
    "calling_a_failed_rebuild_active": 327,
    "claiming_what_it_was_before": 34,
    "comparing_only_what_hosts_say_anew": 81,
    "counting_only_where_servers_are": 198,
    "deleting_the_source_before_the_destination_runs": 473,
    "discarding_the_source_in_post_copy": 57,
    "dropping_the_generation_check": 741,
    "dropping_the_image_before_it_runs": 55,
    "dropping_the_step_check": 262,
    "ending_an_upload_at_the_first_look": 1267,
    "evacuating_on_silence_alone": 506,
    "forwarding_a_port_twice": 461,
    "forwarding_and_leading": 122,
    "giving_memory_twice": 115,
    "hearing_of_nics_only": 101,
    "insisting_on_a_crash_dump": 33,
    "keeping_everything_without_the_bus": 1159,
    "leaving_files_of_deleted_images": 7331,
    "leaving_subports_active": 583,
    "leaving_tags_behind": 283,
    "leaving_the_device_in_the_guest": 106,
    "losing_patience_with_what_progresses": 66,
    "moving_off_a_host_that_is_down": 98,
    "moving_routers_on_silence_alone": 1658,
    "naming_a_segment_that_is_taken": 127,
    "never_comparing_ports": 1525,
    "not_renewing_while_it_starts": 168,
    "overlooking_a_rescue_image": 303,
    "overlooking_an_abort_at_the_line": 25,
    "plugging_in_a_subport": 181,
    "remembering_what_hosts_had": 30,
    "removing_what_was_staged": 130,
    "removing_what_was_staged_too_early": 2106,
    "resizing_with_the_old_flavor_s_disks": 140,
    "resuming_before_the_commit": 40,
    "seeing_what_is_not_over": 264,
    "segments_out_of_any_range": 168,
    "sharing_no_more_what_is_used": 64,
    "taking_an_earlier_guest_for_the_new_one": 720011800,
    "taking_in_what_it_was_before": 34,
    "telling_nothing_after_a_move": 224,
    "telling_once_during_an_operation": 379,
    "unshelving_to_the_host_it_was_on": 43,
}
"""Where to begin looking for a mistake, to find it sooner; up to `CAUGHT_WITHIN` seeds from there count."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """The product's warnings about the injected faults would only repeat the story."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(1, SEEDS + 1, SEEDS_PER_TEST))
def test_no_promise_is_broken(first: int) -> None:
    """A failure prints the shortest story found for the first broken seed."""
    block = run_block((first, min(SEEDS_PER_TEST, SEEDS + 1 - first), STEPS, ""))
    for broken in block.broken:
        told = shrink(run(broken.seed, steps=STEPS))
        pytest.fail(f"seed {broken.seed} of {STEPS} steps, commit {commit()}:\n" + "\n".join(told.log), pytrace=False)
    assert block.settled_after <= SETTLING_SECONDS


def test_many_runs_go_on_where_their_log_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "BLOCK", 2)
    log = tmp_path / "runs.log"
    whole = list(run_many(1, 4, 3, 1, "here", None))
    next(run_many(1, 4, 3, 1, "here", log))
    with open(log, "ab") as file:
        file.write(b'{"commit":"here","fir')  # killed while it wrote
    again = list(run_many(1, 4, 3, 1, "here", log))
    assert [(b.first, b.counts, b.virtual_seconds) for b in again] == [
        (b.first, b.counts, b.virtual_seconds) for b in whole
    ]
    assert len(log.read_bytes().splitlines()) == 2
    assert summary(again).startswith("4 seeds from 1, 3 steps each, commit here: 0 broken")
    with pytest.raises(OtherRuns):
        list(run_many(1, 2, 3, 1, "elsewhere", log))


def test_the_same_seed_tells_the_same_story() -> None:
    """The runs are in other processes with other hash seeds: nothing may depend on the order of a set or on an
    address."""
    told = [
        subprocess.run(
            [sys.executable, "-m", "cumulet.testing.simulation", "--seed", "7", "--steps", str(STEPS)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert told[0] == told[1]
    assert len(told[0].splitlines()) > STEPS


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_mistake_is_caught(name: str) -> None:
    first = 0 if os.environ.get("CUMULET_PLANTED_FROM_ZERO") else FIRST_SEED.get(name, 0)
    with planted(name):
        caught = next((seed for seed in range(first, first + CAUGHT_WITHIN) if run(seed, steps=STEPS).broken), None)
    assert caught is not None, name
    if caught > first + FAR:  # After a change of the workload each seed is another story.
        warnings.warn(f'the search took long: FIRST_SEED["{name}"] = {caught}', stacklevel=1)
