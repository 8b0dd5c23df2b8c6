"""Every fuzzer for a while: `make fuzz SECONDS=…` gives each more."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FUZZERS = ("bundle", "form", "grpc_infer", "http2", "native_json", "oip_binary", "oip_json", "onnx_import", "picture")
SECONDS = int(os.environ.get("FUZZ_SECONDS", "15"))
"""For each; two minutes in all."""
ROOT = Path(__file__).parents[2]


def test_the_list_is_complete() -> None:
    made = {path.stem for path in Path(__file__).parent.glob("*.py") if "__main__" in path.read_text()}
    assert made - {Path(__file__).stem} == set(FUZZERS)


@pytest.mark.parametrize("name", FUZZERS)
@pytest.mark.timeout(SECONDS + 120)
def test_only_our_errors_come_out(name: str, tmp_path: Path) -> None:
    """A finding is printed with the input that makes it: ``python -m tests.fuzz.NAME FILE`` tries it again."""
    command = [sys.executable, "-m", f"tests.fuzz.{name}", f"--seconds={SECONDS}", f"--findings={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, errors="replace")
    findings = {path.name: path.read_bytes()[:3000] for path in tmp_path.iterdir()}
    assert done.returncode == 0, f"{findings}\n{done.stderr[-6000:]}"
    runs = re.search(r"^Done (\d+) runs", done.stderr, re.MULTILINE)
    assert runs, done.stderr[-2000:]
    assert int(runs[1]) > 100, "it hardly tried anything"
    print(f"{name}: {runs[0]}")  # noqa: T201 (shown by -rP: what the fuzzers did)
