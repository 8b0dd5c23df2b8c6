import pytest

from yunmo.cli.values import count, seconds
from yunmo.core.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("90s", 90), ("5m", 300), ("1.5h", 5400), ("7d", 604800), (" 2 M ", 120)]
)
def test_a_length_of_time(text: str, value: float) -> None:
    assert seconds(text, "--budget") == value


@pytest.mark.parametrize("text", ["", "0", "-5", "5 minutes", "m", "1e3", "nan", "inf"])
def test_no_length_of_time(text: str) -> None:
    with pytest.raises(InvalidInput, match="--budget"):
        seconds(text, "--budget")


def test_a_count() -> None:
    assert (count("1", "--queue"), count("1024", "--queue")) == (1, 1024)


@pytest.mark.parametrize("text", ["", "0", "-5", "1.5", "1e3", "٣", "9" * 5000])
def test_no_count(text: str) -> None:
    with pytest.raises(InvalidInput, match="--queue"):
        count(text, "--queue")
