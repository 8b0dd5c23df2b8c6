"""The published proof, in small: no answer lost, none to another caller; and rollouts in which nobody fails."""

from __future__ import annotations

import pytest
from benchmarks.proof import rollout, run


def test_no_answer_is_lost_and_none_is_anothers() -> None:
    with run.yunmo(run.YUNMO_FORMS) as targets:
        tally = run.prove(targets, answers=2000, processes=1, callers=24, aborts=0.15, pipelining=0.2)
    assert tally.proven, str(tally)
    assert tally.answers >= 2000
    assert not tally.refused, str(tally)
    assert {"mid-body", "after body", "mid-answer", "half-closed", "gRPC call"} == set(tally.abandoned)


def test_rollouts_under_load_fail_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    proven = rollout.prove(seconds=0.3, processes=1, callers=6)
    printed = capsys.readouterr().out
    # How quick a rollback is depends on the machine; that nobody failed does not.
    assert proven or ("failed     0 of" in printed and "answered a request that was sent after" not in printed), printed
