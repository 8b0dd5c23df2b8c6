import os
from pathlib import Path

import pytest

from yunmo.client.call import Call, FileBody, Steps, Work, decoder, download, json_body
from yunmo.core.errors import InvalidInput, StorageFull, Unavailable
from yunmo.core.resources import Upload


def test_steps_hand_results_and_errors_to_the_flow() -> None:
    def flow():  # type: ignore[no-untyped-def]
        first = yield from Work(lambda: 1)
        try:
            yield from Call("GET", "/x", lambda _: None)
        except KeyError:
            return first, "caught"

    steps = Steps(flow())
    assert isinstance(steps.action, Work)
    steps.answer(7)
    assert isinstance(steps.action, Call)
    steps.fail(KeyError())
    assert steps.action is None
    assert steps.result == (7, "caught")


def test_an_answer_of_another_shape_is_named() -> None:
    with pytest.raises(Unavailable, match="size"):
        decoder(Upload)(b'{"digest": "x"}')


def test_json_refuses_what_it_has_no_form_for() -> None:
    with pytest.raises(InvalidInput):
        json_body({"a": object()})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="none"):
        FileBody(tmp_path / "none")


def test_a_download_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError), download(tmp_path / "x") as file:
        file.write("no bytes")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_download_into_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be written"), download(tmp_path / "none" / "x"):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = open("/dev/full", "wb", buffering=0)  # noqa: SIM115 - the download closes it
    monkeypatch.setattr(os, "fdopen", lambda handle, _: os.close(handle) or full)
    with pytest.raises(StorageFull, match="no space left"), download(tmp_path / "x") as file:
        file.write(b"x" * 10)
    assert list(tmp_path.iterdir()) == []
