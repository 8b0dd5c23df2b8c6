import io
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tests.unit.client.fake_service import KEY, State, serve

from yunmo.cli import demo
from yunmo.client.client import Client

DIGIT = np.tile(np.arange(0, 256, 36, dtype=np.uint8), (8, 1))


def test_a_digit_goes_out_as_the_same_pixels() -> None:
    picture = Image.open(io.BytesIO(demo._png(DIGIT)))
    assert (np.asarray(picture) == DIGIT).all()


def test_a_digit_is_drawn_with_and_without_colors() -> None:
    assert demo._shades(DIGIT).plain.splitlines() == ["  ░▒▒▓██"] * 8
    drawn = demo._half_blocks(DIGIT)
    assert drawn.plain.splitlines() == ["▀" * 8] * 4
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=40)
    console.print(drawn)
    assert isinstance(console.file, io.StringIO)
    assert "38;2;252;252;252" in console.file.getvalue()


def test_answers_are_counted_against_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    with serve(State()) as url, Client(url, KEY) as client:
        assert demo._ask(client, np.stack([DIGIT] * 4), np.array(["cat", "cat", "cat", "dog"])) == 0.75
    shown = capsys.readouterr().out
    assert shown.count("✓") == 3
    assert shown.count("✗") == 1


def test_another_port_if_the_usual_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        usual = taken.getsockname()[1]
        monkeypatch.setattr(demo, "PORT", usual)
        assert demo._free_port() != usual
    assert demo._free_port() == usual


def test_a_step_that_fails_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "settings.yaml").write_text("prot: 1\n")
    monkeypatch.setenv("YUNMO_HOME", str(home))
    with pytest.raises(SystemExit) as ended:
        demo.run(["--once"])
    assert ended.value.code == 1
    err = capsys.readouterr().err
    assert "unknown key 'prot'" in err
    assert "Traceback" not in err
