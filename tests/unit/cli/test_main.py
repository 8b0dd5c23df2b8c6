import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from yunmo import __version__
from yunmo.cli.main import app

Yunmo = Callable[..., tuple[int, str, str]]

SURFACE = {
    "": {"--version", "--install-completion", "--show-completion"},
    "up": {"--host", "--port", "--grpc-port"},
    "advise SOURCE": {"--test", "--validation", "--target", "--budget", "--set"},
    "train SOURCE": {"--test", "--validation", "--target", "--name", "--budget", "--set", "--detach"},
    "runs ls": set(),
    "runs show ID": {"--html"},
    "runs logs ID": {"--process"},
    "runs cancel ID": set(),
    "runs resume ID": {"--detach"},
    "data add NAME PATH": {"--test", "--validation"},
    "data ls": set(),
    "data show NAME[:V]": set(),
    "data profile NAME[:V]": set(),
    "models ls": set(),
    "models show NAME[:V]": {"--bom"},
    "models verify NAME:V": set(),
    "models export NAME:V FILE": set(),
    "models import FILE": {"--name", "--fields"},
    "models alias NAME:V ALIAS": set(),
    "evaluate NAME:V DATA": set(),
    "deploy NAME:V": {"--endpoint", "--canary", "--shadow"},
    "rollback ENDPOINT": set(),
    "endpoints ls": set(),
    "endpoints show ENDPOINT": set(),
    "endpoints set ENDPOINT": {"--concurrency", "--queue", "--timeout", "--sticky"},
    "endpoints rm ENDPOINT": set(),
    "endpoints schema ENDPOINT": set(),
    "predict ENDPOINT FILE...": {"--output", "-o"},
    "jobs start ENDPOINT NAME[:V]": {"--split", "--name", "--detach"},
    "jobs ls ENDPOINT": set(),
    "jobs show ENDPOINT ID": set(),
    "jobs cancel ENDPOINT ID": set(),
    "jobs resume ENDPOINT ID": {"--detach"},
    "keys create NAME": {"--scope", "--endpoint", "--expires"},
    "keys ls": set(),
    "keys revoke ID": set(),
    "doctor": set(),
}
"""Every verb with its arguments and options (and ``--json``): a change here is a change for every user and script."""


def verbs(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, set[str]]]:
    arguments = [each.metavar or each.name.upper() for each in command.params if each.param_type_name == "argument"]
    options = {name for each in command.params if each.param_type_name == "option" for name in each.opts}
    children = getattr(command, "commands", {})
    if not children or options:
        yield " ".join([*path, *arguments]), options
    for name, child in children.items():
        yield from verbs(child, (*path, name))


def test_the_surface_is_frozen() -> None:
    found = dict(verbs(typer.main.get_command(app)))
    assert found == {verb: options | {"--json"} if verb else options for verb, options in SURFACE.items()}


def processor_seconds() -> float:
    """Processor time of all processes that this one has started and waited for: other load does not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_version_is_quick_and_imports_nothing_heavy() -> None:
    program = (
        "import sys; from yunmo.cli.main import main; status = main(['--version']);"
        "heavy = {'torch', 'numpy', 'httpx', 'rich', 'msgspec', 'onnxruntime', 'fastapi'} & set(sys.modules);"
        "sys.exit(f'imported: {heavy}' if heavy else status)"
    )
    took = []
    for _ in range(3):
        began = processor_seconds()
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        took.append(processor_seconds() - began)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"yunmo {__version__}\n", "")
    assert min(took) < 0.5


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["trian"], "'train'"),
        (["train", "x", "--nmae", "y"], "--name"),
        (["runs", "shwo", "x"], "'show'"),
        (["train"], "SOURCE"),
        (["up", "--port", "70000"], "65535"),
        (["predict", "pets"], "FILE"),
    ],
)
def test_misuse_is_one_line_with_a_hint_and_status_2(yunmo: Yunmo, arguments: list[str], hint: str) -> None:
    status, out, err = yunmo(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert hint in err
    assert err.count("\n") == 1


@pytest.mark.usefixtures("service")
def test_an_error_is_one_line_and_status_1(yunmo: Yunmo) -> None:
    status, out, err = yunmo("runs", "show", "run_9")
    assert (status, out) == (1, "")
    assert err == "error: nothing is at runs/run_9\n"


def test_no_service_at_the_url(yunmo: Yunmo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YUNMO_URL", "http://127.0.0.1:9")
    status, _, err = yunmo("runs", "ls")
    assert status == 1
    assert err.startswith("error: http://127.0.0.1:9: ")
    assert "yunmo up" in err


@pytest.mark.usefixtures("service")
def test_a_folder_that_cannot_be_written_is_one_line(yunmo: Yunmo, tmp_path: Path) -> None:
    status, _, err = yunmo("models", "export", "pets:1", tmp_path / "none" / "x")
    assert status == 1
    assert err.count("\n") == 1


def test_a_defect_shows_no_traceback_unless_asked(yunmo: Yunmo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yunmo.cli.doctor.examine", lambda: 1 / 0)
    status, _, err = yunmo("doctor")
    assert status == 1
    assert err.count("\n") == 1
    assert "ZeroDivisionError" in err
    monkeypatch.setenv("YUNMO_LOG_LEVEL", "debug")
    with pytest.raises(ZeroDivisionError):
        yunmo("doctor")


def test_an_interrupt_is_status_130(yunmo: Yunmo, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("yunmo.cli.doctor.examine", interrupt)
    assert yunmo("doctor")[0] == 130


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-m", "yunmo.cli", "doctor", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1
