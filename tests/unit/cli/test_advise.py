"""How advice is shown; that it is right, tests/e2e/test_advise.py and the tests of training see to."""

import os
import sys
from subprocess import run

import pytest

from yunmo.cli.advise import _show
from yunmo.core.advice import Advice, Candidate, Range, Seconds, ShortTraining, Yardstick
from yunmo.core.events import Decision


def advice(**changes: object) -> Advice:
    tried = (ShortTraining(rows=500, epochs=3, value=0.7, judged=300), ShortTraining(2000, 3, 0.751, 300))
    bag = Candidate(
        name="bag",
        command="yunmo train [x].csv",
        epochs=10,
        seconds=Seconds(epochs=25.2, run=88.0),
        memory=1_040_000_000,
        metric=Range(low=0.74, middle=0.8, high=0.89),
        probes=tried,
    )
    gru = Candidate(name="gru", command="yunmo train x.csv --set 'inputs=[{name: t}]'", note="not probed: no time")
    cnn = Candidate(name="textcnn", command="yunmo train x.csv --set a", metric=Range(low=0.1, middle=0.2, high=0.3))
    known = {
        "data": "[x].csv",
        "task": "category",
        "output": "label",
        "metric": "accuracy",
        "rows": {"train": 8000, "validation": 900, "test": 1000},
        "read": 1.0,
        "sampled": {"train": 2000, "validation": 300, "test": 300},
        "decisions": tuple(Decision(f"inputs.t{number}", "text", "[a] reason") for number in range(11)),
        "candidates": (bag, gru, cnn),
        "linear": Yardstick(name="logistic regression", metric=Range(low=0.6, middle=0.7, high=0.75)),
        "recommended": "bag",
        "reason": "the default",
        "command": bag.command,
        "cores": 2,
        "load": 1.25,
        "free_memory": 10**10,
        "seconds": 17.1,
    }
    return Advice(**(known | changes))  # type: ignore[arg-type]  # as above


def test_advice_is_a_table_a_reason_and_a_line_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    _show(advice())
    out = capsys.readouterr().out
    for text in (
        "[x].csv: 8,000 rows to learn from, 900 to choose by, 1,000 to test on; 2,600 of them were looked at",
        "inputs.t7 text [a] reason",
        "… and 3 more",
        "accuracy expected",
        "74.0 to 89.0 %",
        "1:28",
        "1.0 GB",
        "  bag: 75.1 % from 2,000 rows, 3 epochs\n",
        "logistic regression",
        "60.0 to 75.0 %",
        "bag: the default",
        "  yunmo train [x].csv\n",
        "  gru: not probed: no time\n  textcnn: ",
        "\n    yunmo train x.csv --set a\n",
        "17 s on 2 cores, 1.2 processes at work",
    ):
        assert text in out
    assert "inputs.t8" not in out
    # Nothing is known of it, so that nobody is told to type it.
    assert "--set 'inputs=" not in out


def test_numbers_stay_whole_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yunmo.cli.output.WIDE", 80)
    _show(advice())
    row = next(line for line in capsys.readouterr().out.splitlines() if "1.0 GB" in line)
    assert row.split() == ["bag", "10", "25", "s", "1:28", "1.0", "GB", "74.0", "to", "89.0", "%"]


def test_regression_is_shown_by_its_explained_variance(capsys: pytest.CaptureFixture[str]) -> None:
    _show(advice(metric="r2", task="number"))
    out = capsys.readouterr().out
    assert "R² expected" in out
    assert "0.740 to 0.890" in out


def test_numbers_of_rows_that_were_not_all_read_are_about_right(capsys: pytest.CaptureFixture[str]) -> None:
    _show(advice(read=0.1))
    assert "about 8,000 rows to learn from" in capsys.readouterr().out


def test_asking_imports_no_torch() -> None:
    code = "import sys, yunmo.cli.advise, yunmo.app.advising, yunmo.store.workspace; sys.exit('torch' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False, env={**os.environ}).returncode == 0
