"""``yunmo advise`` as a user has it: what it says, what it refuses, and that it leaves nothing behind."""

import csv
import random
import shlex
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from tests.e2e.command import Home

from yunmo.app.advising import SECONDS
from yunmo.core.advice import Advice
from yunmo.store.workspace import Workspace

MODULE = "yunmo.control.jobs.advise"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "scratch").mkdir()
    return Home(tmp_path / "home", {"TMPDIR": str(tmp_path / "scratch")})


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 400 rows: who leaves depends on age and plan, and partly on chance; so does what they pay."""
    chance = random.Random(0)  # noqa: S311  data, not secrets
    path = tmp_path_factory.mktemp("data") / "churn.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "plan", "paid", "churned"])
        for _ in range(400):
            age, plan = chance.randint(18, 80), chance.choice(["basic", "pro"])
            left = (age > 45) + (plan == "basic") + chance.random() > 1.5
            writer.writerow([age, plan, f"{age / 7 + chance.random():.3f}", "yes" if left else "no"])
    return path


def running(home: Home) -> list[psutil.Process]:
    """Return the processes of advice that were started for a workspace."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        known, command = process.info["environ"] or {}, process.info["cmdline"] or ()
        if MODULE in command and known.get("YUNMO_HOME") == str(home.path):
            found.append(process)
    return found


def left_over(home: Home) -> list[Path]:
    return list((home.path.parent / "scratch").iterdir())


def test_advice_names_networks_with_what_they_cost_and_reach(home: Home, table: Path) -> None:
    answer = home.ok("advise", table, "--target", "churned", "--budget", "2m", "--json")
    advice = msgspec.convert(answer.json, Advice)
    assert (advice.task, advice.output, advice.metric) == ("category", "churned", "accuracy")
    assert sum(advice.rows.values()) == sum(advice.sampled.values()) == 400
    assert [each.name for each in advice.candidates] == ["mlp", "mlp, small", "mlp, large"]
    assert advice.recommended in {each.name for each in advice.candidates}
    assert advice.seconds < SECONDS
    first = advice.candidates[0]
    assert first.command == f"yunmo train {table} --target churned --budget 2m"
    assert shlex.split(advice.candidates[1].command)[-2] == "--set"
    assert first.seconds is not None
    assert 0 < first.seconds.epochs < first.seconds.run
    assert first.memory is not None
    assert 200e6 < first.memory < 2e9
    for each in (*advice.candidates, advice.linear):
        if each.metric is not None:
            assert 0 <= each.metric.low <= each.metric.middle <= each.metric.high <= 1
            assert each.probes
        else:
            assert each.note
    # Nothing is left: neither in the workspace nor beside it.
    assert not home.path.exists()
    assert left_over(home) == []
    assert running(home) == []


def test_people_get_a_table_also_for_numbers_and_while_a_workspace_is_held(home: Home, table: Path) -> None:
    workspace = Workspace(home.path)
    with workspace.lock():
        shown = home.ok("advise", table, "--target", "paid", "--set", "train.epochs=3").out
    for text in ("R² expected", "ridge regression", "mlp", "yunmo train", "--target paid", "rows to learn from"):
        assert text in shown


def refusals(folder: Path, table: Path) -> dict[str, tuple[list[Any], str]]:
    """Return command lines that are refused, with what is said."""
    one = folder / "one.csv"
    one.write_text("a,label\n" + "".join(f"{row % 5},yes\n" for row in range(50)))
    recipe, misspelt = folder / "recipe.yaml", folder / "misspelt.yaml"
    recipe.write_text("data: {dataset: pets}\n")
    tuned = folder / "tuned.yaml"
    tuned.write_text(
        f"data: {{train: {table}}}\n"
        "inputs: [{name: city, type: text, encoder: {type: pretrained, folder: minilm}}]\n"
        "outputs: [{name: churned, type: category}]\n"
    )
    misspelt.write_text(f"data: {{train: {table}}}\ntrain: {{epoch: 3}}\n")
    return {
        "no such file": ([folder / "none.csv"], "no such file or folder"),
        "a dataset": ([recipe], "advice needs the files themselves"),
        "a pretrained encoder": ([tuned], "a pretrained encoder is not tried"),
        "misspelt key": ([misspelt], "unknown key 'epoch'"),
        "unknown target": ([table, "--target", "chrned"], "Did you mean 'churned'?"),
        "one class": ([one], "have one label, 'yes'"),
        "a batch too large": ([table, "--target", "churned", "--set", "train.batch_size=9999"], "a batch of 9999"),
    }


def test_what_training_refuses_is_refused_in_the_same_words(home: Home, table: Path, tmp_path: Path) -> None:
    for name, (arguments, words) in refusals(tmp_path, table).items():
        assert words in home.refused("advise", *arguments), name
    assert left_over(home) == []


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_no_process_and_no_file(home: Home, table: Path, ending: signal.Signals) -> None:
    with home.started("advise", table, "--target", "churned") as process:
        until = time.monotonic() + 60
        while not running(home) and time.monotonic() < until:
            time.sleep(0.05)
        started = running(home)
        assert started
        time.sleep(1.0)
        psutil.Process(process.pid).send_signal(ending)
        assert psutil.Process(process.pid).wait(timeout=30) in (130, None)
    psutil.wait_procs(started, timeout=30)
    assert running(home) == []
    assert left_over(home) == []
