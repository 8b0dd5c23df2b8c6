"""What a client sends for a pretrained encoder's folder, and what it holds a recipe to."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.fixtures.encoders import change, write_plain

from yunmo.client.call import Call, FileBody, Steps, Work
from yunmo.client.requests import train
from yunmo.core.errors import DataError, NotFound, RecipeError
from yunmo.core.resources import Upload


def sent(base: Path, **keys: Any) -> tuple[list[str], dict[str, Any]]:
    """Drive a flow up to its data: return the digests of what is uploaded, and the encoder as the run has it."""
    field = {"name": "text", "type": "text", "encoder": {"type": "pretrained", **keys}}
    recipe = {"data": {"dataset": "reviews:1"}, "inputs": [field]}
    steps = Steps(train(recipe, folder=base))
    uploaded: list[str] = []
    while True:
        action = steps.action
        if isinstance(action, Work):
            steps.answer(action.do())
            continue
        assert isinstance(action, Call)
        if isinstance(action.body, bytes):
            encoder: dict[str, Any] = msgspec.json.decode(action.body)["recipe"]["inputs"][0]["encoder"]
            return uploaded, encoder
        assert isinstance(action.body, FileBody)
        uploaded.append(f"sha256:{hashlib.sha256(b''.join(action.body.chunks())).hexdigest()}")
        steps.answer(Upload(digest=uploaded[-1], size=action.body.size))


def test_a_folder_is_sent_and_known_by_its_content(tmp_path: Path) -> None:
    write_plain(tmp_path / "encoders" / "tiny")
    uploaded, encoder = sent(tmp_path, folder="encoders/tiny")
    assert encoder == {"type": "pretrained", "folder": "tiny", "digest": uploaded[0]}
    assert len(uploaded) == 1
    again, _ = sent(tmp_path, folder=str(tmp_path / "encoders" / "tiny"), digest=uploaded[0])
    assert again == uploaded


def test_another_content_than_the_recipes_is_refused(tmp_path: Path) -> None:
    folder = write_plain(tmp_path / "tiny")
    (digest,), _ = sent(tmp_path, folder="tiny")
    change(folder, "config.json", hidden_dropout_prob=0.2)
    with pytest.raises(RecipeError, match="the folder is not what it was"):
        sent(tmp_path, folder="tiny", digest=digest)
    shutil.rmtree(folder)
    assert sent(tmp_path, folder="tiny", digest=digest) == (
        [],
        {"type": "pretrained", "folder": "tiny", "digest": digest},
    )
    with pytest.raises(NotFound, match="nothing is downloaded"):
        sent(tmp_path, folder="tiny")


def test_what_is_wrong_with_a_folder_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    (write_plain(tmp_path / "tiny") / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"model\.safetensors is missing"):
        sent(tmp_path, folder="tiny")
