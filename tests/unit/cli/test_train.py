import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.client.fake_service import RUN, State, failed_events, happy_events

from yunmo.cli.train import recipe_of
from yunmo.core.errors import InvalidInput, RecipeError
from yunmo.core.events import RunCancelled

pytestmark = pytest.mark.usefixtures("service")

Yunmo = Callable[..., tuple[int, str, str]]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "pets.csv"
    path.write_text("a,b\n1,2\n")
    return path


def test_a_run_is_shown_from_choice_to_report(yunmo: Yunmo, service: State, table: Path) -> None:
    status, out, err = yunmo("train", table, "--target", "b", "--budget", "2m", "--set", "train.epochs=2")
    assert (status, err) == (0, "")
    for text in (
        "train.epochs",
        "the budget",
        "epoch 1/2",
        "75.0 %",
        "90.0 %",
        "logistic regression",
        "a note",
        "▁█",
        "cat taken for dog (20)",
    ):
        assert text in out
    assert "The network is better than a linear model" in out
    assert "yunmo deploy pets:1" in out
    assert service.run_request["target"] == "b"
    assert service.run_request["recipe"]["train"] == {"budget": 120.0, "epochs": 2}
    assert service.run_request["recipe"]["name"] == "pets"


def test_machines_get_events_line_by_line_then_run_and_report(yunmo: Yunmo, table: Path) -> None:
    status, out, _ = yunmo("train", table, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [line["event"]["event"] for line in lines[:-1]][-1] == "run.finished"
    assert len(lines) == len(happy_events()) + 1
    assert lines[-1]["run"]["id"] == RUN
    assert lines[-1]["report"]["name"] == "pets"


def test_detach_does_not_wait(yunmo: Yunmo, service: State, table: Path) -> None:
    status, out, _ = yunmo("train", table, "--detach")
    assert status == 0
    assert f"yunmo runs logs {RUN}" in out
    assert not service.named("GET", f"/api/v1/runs/{RUN}/events")


def test_a_failed_run_is_its_error(yunmo: Yunmo, service: State, table: Path) -> None:
    service.events = failed_events()
    status, _, err = yunmo("train", table)
    assert (status, err) == (1, "error: x.csv, row 7: gone. Look\n")


def test_a_run_that_someone_else_stopped(yunmo: Yunmo, service: State, table: Path) -> None:
    service.events = [RunCancelled()]
    status, _, err = yunmo("train", table)
    assert status == 1
    assert f"yunmo runs resume {RUN}" in err


def test_resume_shows_only_what_is_new(yunmo: Yunmo, service: State) -> None:
    service.events, service.status = [*happy_events()[:4], RunCancelled()], "cancelled"
    status, out, err = yunmo("runs", "resume", RUN)
    assert (status, err) == (0, "")
    asked = [request[2]["last-event-id"] for request in service.named("GET", f"/api/v1/runs/{RUN}/events")]
    assert asked == ["0", "5"]
    assert "yunmo deploy pets:1" in out


def test_what_cannot_be_resumed(yunmo: Yunmo) -> None:
    status, _, err = yunmo("runs", "resume", RUN)
    assert (status, err) == (1, f"error: {RUN}: there is nothing to resume\n")


def test_logs_are_the_events_or_what_the_process_wrote(yunmo: Yunmo) -> None:
    shown = yunmo("runs", "logs", RUN)[1]
    assert "epoch 1/2" in shown
    assert "Registered as" in shown.splitlines()[-1]
    assert yunmo("runs", "logs", RUN, "--process")[1] == "what the process wrote\n"


def test_the_report_as_a_page(yunmo: Yunmo, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert yunmo("runs", "show", RUN, "--html", page)[0] == 0
    assert page.read_text().startswith("<html>")


def test_ctrl_c_stops_the_run_cleanly_and_says_how_to_resume(service: State, table: Path) -> None:
    service.events, service.until_cancelled = happy_events()[:-1], True
    command = [sys.executable, "-m", "yunmo.cli", "train", str(table)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    end = time.monotonic() + 20
    while not service.named("GET", f"/api/v1/runs/{RUN}/events") and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert service.cancelled.is_set()
    assert err == f"resume with: yunmo runs resume {RUN}\n"
    assert "Stopping" in out


# --- what a command line means ---


def meaning(source: Path, **options: object) -> dict[str, object]:
    given = {"test": None, "validation": None, "name": None, "budget": None, "settings": []} | options
    return recipe_of(source, **given)[0]  # type: ignore[arg-type]


def test_data_becomes_a_recipe(table: Path) -> None:
    assert meaning(table, test=table, name="x", budget="90") == {
        "data": {"train": str(table), "test": str(table)},
        "name": "x",
        "train": {"budget": 90.0},
    }


def test_a_recipe_is_taken_with_options_over_it(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: a\ndata: {train: pets.csv}\ntrain: {epochs: 3}\n")
    data, folder = recipe_of(recipe, None, None, "b", "1h", ["train.lr=0.1"])
    assert data == {
        "name": "b",
        "data": {"train": "pets.csv"},
        "train": {"epochs": 3, "budget": 3600.0, "lr": 0.1},
    }
    assert folder == tmp_path


def test_what_does_not_fit_is_said(tmp_path: Path, table: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("data: {train: pets.csv}\ntrain: {epoch: 3}\n")
    with pytest.raises(RecipeError, match=r"r\.yaml, train: unknown key 'epoch'. Did you mean 'epochs'\?"):
        meaning(recipe)
    with pytest.raises(InvalidInput, match="--budget"):
        meaning(table, budget="soon")
    with pytest.raises(InvalidInput, match="no such file"):
        meaning(table, test=tmp_path / "none")
    with pytest.raises(InvalidInput, match="no such file"):
        meaning(tmp_path / "none")
