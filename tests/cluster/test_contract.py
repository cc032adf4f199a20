"""The contract, message by message, with whatever senders, workers and both servers do."""

from __future__ import annotations

from cluster_contract import ClusterContract
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from support import FULL


def test_a_store_over_two_servers_keeps_the_whole_contract() -> None:
    run_state_machine_as_test(
        ClusterContract,
        settings=settings(
            max_examples=500 if FULL else 8,
            stateful_step_count=30 if FULL else 15,
            report_multiple_bugs=False,
            # A failure is replayed by its seed; to make it smaller would take many minutes.
            phases=(Phase.explicit, Phase.generate),
        ),
    )
