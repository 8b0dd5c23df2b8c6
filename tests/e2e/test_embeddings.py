"""Vectors of words from a file: sent with the recipe, trained on, told of, pinned, and the same again."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import yaml
from tests.e2e.command import Service, sha256

GOOD, BAD = ("lovely", "brilliant", "moving"), ("dull", "awful", "tedious")


def test_from_a_file_of_vectors_to_the_same_model_twice(live: Service, tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    rows = [f"the film is {dice.choice(GOOD if i % 2 else BAD)} {i},{'good' if i % 2 else 'bad'}" for i in range(160)]
    (tmp_path / "praise.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    lines = [f"{word} {' '.join(map(str, dice.normal(1 if word in GOOD else -1, 0.1, 8)))}" for word in GOOD + BAD]
    file = tmp_path / "words.vec.gz"
    file.write_bytes(gzip.compress(f"6 8\n{chr(10).join(lines)}\n".encode()))
    text = {"name": "text", "type": "text", "encoder": {"type": "textcnn", "filters": 8}}
    recipe = {
        "data": {"train": "praise.csv"},
        "inputs": [{**text, "embeddings": {"file": "words.vec.gz", "frozen": True}}],
        "outputs": [{"name": "label", "type": "category"}],
        "train": {"epochs": 4, "precision": "fp32"},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    first = live.home.train(tmp_path / "recipe.yaml")
    told = [each for each in first["report"]["decisions"] if each["key"] == "inputs.text.embeddings"]
    assert told[0]["value"].startswith("6 of ")
    assert "words.vec.gz" in told[0]["reason"]
    pinned = first["run"]["resolved"]["inputs"][0]["embeddings"]
    assert pinned == {"file": "words.vec.gz", "frozen": True, "digest": f"sha256:{sha256(file)}", "size": 8}
    bundle = live.home.bundle(first["run"])
    bill = live.home.ok("models", "show", "praise:1", "--json").json
    assert bill["digest"]
    assert sha256(file) in (bundle / "bom.json").read_text()
    file.unlink()
    again = tmp_path / "again" / "recipe.yaml"
    again.parent.mkdir()
    again.write_bytes((bundle / "recipe.yaml").read_bytes())
    second = live.home.train(again)
    assert sha256(live.home.bundle(second["run"]) / "weights.safetensors") == sha256(bundle / "weights.safetensors")


def test_a_bad_file_is_one_clear_line(live: Service, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"the film {i},{i % 2}\n" for i in range(40)))
    (tmp_path / "v.txt").write_text("the 1 2 3\nfilm 1 2\n")
    text = {"name": "text", "type": "text", "encoder": {"type": "textcnn"}, "embeddings": {"file": "v.txt"}}
    outputs = [{"name": "label", "type": "category"}]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"data": {"train": "t.csv"}, "inputs": [text], "outputs": outputs}))
    assert "v.txt, row 2: 2 numbers where the first row has 3" in live.home.refused("train", recipe)
    (tmp_path / "v.txt").unlink()
    assert "no such file" in live.home.refused("train", recipe)
