from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.fixtures.bundles import key_files, make_bundle

UNWANTED = (
    *("torch", "sklearn", "scipy", "pandas", "onnx"),
    *("sqlalchemy", "dbos", "fastapi", "starlette", "pydantic", "httpx", "requests", "model_signing"),
)

PROGRAM = """
import resource, sys
from yunmo.inference.predictor import Predictor
def check(when):
    found = [name for name in sys.argv[3].split() if name in sys.modules]
    assert not found, (when, found)
check("imported")
print(int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20)
from pathlib import Path
predictor = Predictor.open(Path(sys.argv[1]), public_key_pem=sys.argv[2])
predictor.predict([{"age": 1, "city": None}])
check("opened")
"""


def test_a_data_worker_stays_small(tmp_path: Path) -> None:
    key, public = key_files(tmp_path)
    make_bundle(tmp_path / "bundle", private_key=key)
    arguments = [sys.executable, "-c", PROGRAM, str(tmp_path / "bundle"), public, " ".join(UNWANTED)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) <= 70
