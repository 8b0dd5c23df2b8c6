from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.client.fake_service import KEY, State, happy_events, serve

from yunmo.cli.main import main


@pytest.fixture
def state() -> State:
    return State(events=happy_events())


@pytest.fixture
def service(state: State, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[State]:
    """A service that the command line talks to by its URL."""
    with serve(state) as url:
        monkeypatch.setenv("YUNMO_URL", url)
        monkeypatch.setenv("YUNMO_API_KEY", KEY)
        monkeypatch.setenv("YUNMO_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("COLUMNS", "140")
        yield state


@pytest.fixture
def yunmo(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command line: give its arguments, get exit status, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return call
