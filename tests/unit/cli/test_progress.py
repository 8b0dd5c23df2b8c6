import io

import pytest
from rich.console import Console

from yunmo.cli.progress import LiveView, cleaning_lines, transfer
from yunmo.core.events import AnyEvent, Envelope, EpochFinished, RunNotice, StepStarted, TrainingProgress


def envelope(event: AnyEvent) -> Envelope:
    return Envelope(sequence=1, id="e", time=1.0, project_id="p", subject="run", event=event)


def epoch(number: int, of: int, value: float, best: bool) -> EpochFinished:
    return EpochFinished(
        epoch=number,
        epochs=of,
        train_loss=0.5,
        validation_loss=0.4,
        metric="accuracy",
        value=value,
        best=best,
        lr=0.1,
        seconds=1.0,
    )


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=140, highlight=False)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_bar_shows_epoch_loss_validation_and_time_left(console: Console) -> None:
    with LiveView(console) as view:
        view.show(envelope(StepStarted(step="train")))
        view.show(envelope(epoch(1, 4, 0.8, best=True)))
        view.show(envelope(epoch(2, 4, 0.7, best=False)))
        view.show(
            envelope(
                TrainingProgress(epoch=3, epochs=4, step=1, steps=2, loss=0.123, rows_per_second=9, seconds_left=65)
            )
        )
    shown = text(console)
    for part in ("Training", "epoch 3/4", "loss 0.123", "validation accuracy 70.0 % (best 80.0 %)", "1:05 left"):
        assert part in shown


def test_many_epochs_leave_few_lines(console: Console) -> None:
    with LiveView(console) as view:
        for number in range(1, 201):
            view.show(envelope(epoch(number, 200, 0.5, best=False)))
    lines = [line for line in text(console).splitlines() if "validation loss" in line]
    assert 10 <= len(lines) <= 21
    assert "200/200" in lines[-1]


def test_text_of_the_data_is_no_markup(console: Console) -> None:
    with LiveView(console) as view:
        view.show(envelope(RunNotice(message="column [red] left out")))
    assert "column [red] left out" in text(console)


def test_cleaning_says_where_what_how_often_and_which_rows() -> None:
    issue = {"split": "train", "field": "age", "reason": "missing", "action": "filled", "count": 4}
    rows = [f"a.csv, row {row}" for row in (2, 3, 4)]
    assert list(cleaning_lines({"read": {"train": 9}, "kept": {"train": 9}, "issues": [{**issue, "rows": rows}]})) == [
        "train, age: missing, 4 rows: filled (a.csv, row 2, a.csv, row 3, a.csv, row 4, …)"
    ]


def test_a_transfer_that_nobody_sees_draws_nothing() -> None:
    with transfer(quiet=True) as progress:
        assert progress is None
