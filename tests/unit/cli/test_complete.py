"""Completion as the shells ask for it: each by its own variables."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.fixtures.bundles import make_bundle
from tests.unit.client.fake_service import KEY, State, serve
from tests.unit.control.service import Api

from yunmo.bundle import archive
from yunmo.cli.main import main
from yunmo.control.context import open_context
from yunmo.control.services.keys import Keys
from yunmo.store.workspace import Workspace

Completed = Callable[..., list[str]]
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command and returns its status and output; on stderr there must be nothing."""

    def call(*arguments: str, home: Path, **variables: str) -> tuple[int, str]:
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("YUNMO_")]:
                patch.delenv(name)
            for name, value in {"YUNMO_HOME": str(home / "workspace"), "HOME": str(home), **variables}.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main(arguments)
        told = capsys.readouterr()
        assert told.err == ""
        return int(ended.value.code or 0), told.out

    return call


@pytest.fixture
def completed(run: Run) -> Completed:
    """Return a function that says what a shell is offered for the last word of a line."""

    def ask(shell: str, line: str, home: Path, **variables: str) -> list[str]:
        asked = {
            "bash": {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))},
            "zsh": {"_TYPER_COMPLETE_ARGS": line},
            "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
        }[shell]
        status, out = run(home=home, _YUNMO_COMPLETE=f"complete_{shell}", **asked, **variables)
        assert status == 0
        return [each for each in out.splitlines() if each]

    return ask


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a workspace: the model ``tiny:1`` behind the endpoint ``pets``, and the dataset ``rows:1``."""
    home = tmp_path_factory.mktemp("home")
    workspace = Workspace(home / "workspace")
    with open_context(workspace, workspace.settings()) as context:
        Keys(context).start()
        api = Api(context, "admin")
        make_bundle(home / "bundle", private_key=context.signing_keys()[0])
        archive.export(home / "bundle", home / "bundle.zip")
        assert api.post("/models", content=(home / "bundle.zip").read_bytes()).status_code == 201
        assert api.put("/endpoints/pets", {"model": "tiny:1"}).status_code == 200
        (home / "rows.csv").write_text("a,b\n1,2\n")
        api.add("rows", home / "rows.csv")
    return home


@pytest.fixture
def service() -> Iterator[str]:
    with serve(State()) as url:
        yield url


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_verbs_and_names_are_completed(completed: Completed, shell: str, home: Path) -> None:
    assert any("predict" in line for line in completed(shell, "yunmo pre", home))
    assert any("pets" in line for line in completed(shell, "yunmo predict pe", home))
    assert not any("pets" in line for line in completed(shell, "yunmo predict zz", home))


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("yunmo rollback p", ["pets"]),
        ("yunmo deploy t", ["tiny:1"]),
        ("yunmo data show ", ["rows:1"]),
        ("yunmo jobs start pets r", ["rows:1"]),
    ],
)
def test_each_argument_gets_its_own_names(completed: Completed, line: str, names: list[str], home: Path) -> None:
    assert completed("bash", line, home) == names


def test_a_service_is_asked_where_there_is_one(completed: Completed, home: Path, service: str) -> None:
    found = completed("bash", "yunmo models show ", home, YUNMO_URL=service, YUNMO_API_KEY=KEY)
    assert found == ["pets:1", "pets:2"]


def test_what_is_wrong_is_silent_and_makes_nothing(completed: Completed, tmp_path: Path) -> None:
    assert completed("bash", "yunmo predict ", tmp_path) == []
    assert completed("bash", "yunmo predict ", tmp_path, YUNMO_URL="http://127.0.0.1:1") == []
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "workspace").mkdir()
    assert completed("bash", "yunmo predict ", tmp_path) == []
    assert not (tmp_path / "workspace" / "metadata.sqlite").exists()


@pytest.mark.parametrize(
    ("shell", "file"),
    [
        ("bash", ".bash_completions/yunmo.sh"),
        ("zsh", ".zfunc/_yunmo"),
        ("fish", ".config/fish/completions/yunmo.fish"),
    ],
)
def test_each_shell_is_given_its_script(run: Run, shell: str, file: str, tmp_path: Path) -> None:
    # Typer tells the shell by the process above; this variable of its own lets a test name it.
    told = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    assert run("--install-completion", shell, home=tmp_path, **told)[0] == 0
    script = (tmp_path / file).read_text()
    assert "_YUNMO_COMPLETE" in script
    assert run("--show-completion", shell, home=tmp_path, **told)[1].strip() == script.strip()


def test_bash_itself_completes_after_the_script(run: Run, tmp_path: Path, home: Path) -> None:
    command = tmp_path / "yunmo"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m yunmo.cli "$@"\n')
    command.chmod(0o755)
    told = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    (tmp_path / "script.sh").write_text(run("--show-completion", "bash", home=home, **told)[1])
    ask = "source script.sh; COMP_WORDS=(yunmo predict pe); COMP_CWORD=2; "
    ask += 'eval "$(complete -p yunmo | sed "s/.*-F \\([^ ]*\\) .*/\\1/") yunmo"; echo "${COMPREPLY[@]}"'
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "YUNMO_HOME": str(home / "workspace")}
    done = subprocess.run(
        ["/bin/bash", "-c", ask], capture_output=True, text=True, cwd=tmp_path, env=environment, check=True
    )
    assert done.stdout.split() == ["pets"], done
