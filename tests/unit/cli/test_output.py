import pytest

from yunmo.cli import output


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (65, "1:05"), (7265, "2:01:05")]
)
def test_duration(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (4e12, "4.0 TB")])
def test_size(count: float, text: str) -> None:
    assert output.size(count) == text


def test_a_share_is_percent_and_what_is_not_defined_a_dash() -> None:
    assert output.metric("accuracy", 0.98765) == "98.8 %"
    assert output.metric("rmse", 12.34567) == "12.35"
    assert output.metric("roc_auc", None) == "-"


def test_a_curve_rises_and_is_no_longer_than_wanted() -> None:
    assert output.curve([0, 7]) == "▁█"
    assert output.curve([5, 5, 5]) == "▁▁▁"
    assert output.curve([]) == ""
    bars = output.curve(range(1000), 8)
    assert bars == "▁▂▃▄▅▆▇█"


def test_a_line_to_copy_is_not_broken(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    output.say("curl " + "x " * 60)
    assert capsys.readouterr().out.count("\n") == 1
