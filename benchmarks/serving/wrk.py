"""A cross-check of our load generator: the same requests by ``wrk``, which counts answers but does not look at them."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.serving.load import Variant
from benchmarks.serving.places import Failed

CASES = ("cnn-jpeg", "mlp-json")
"""Cases that are checked so."""
_SCRIPT = """
local requests, place = {}, 0
for number = 1, COUNT do
  local file = io.open("FOLDER/" .. number, "rb")
  requests[number] = file:read("*a")
  file:close()
end
function request()
  place = place % COUNT + 1
  return requests[place]
end
"""


def available() -> bool:
    """Say whether ``wrk`` is installed (Debian package wrk)."""
    return shutil.which("wrk") is not None


def run(port: int, variants: Sequence[Variant], connections: int, seconds: float) -> float:
    """Return the answers a second that wrk counts.

    Raises:
        Failed: wrk failed, or got answers other than 2xx or 3xx.
    """
    with tempfile.TemporaryDirectory() as folder:
        for number, each in enumerate(variants, 1):
            Path(folder, str(number)).write_bytes(each.request)
        script = Path(folder, "requests.lua")
        script.write_text(_SCRIPT.replace("COUNT", str(len(variants))).replace("FOLDER", folder))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(script)]
        done = subprocess.run([*command, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=False)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if done.returncode or rate is None or "Non-2xx" in done.stdout:
        raise Failed(f"wrk: {done.stdout[-500:]} {done.stderr[-500:]}")
    return float(rate[1])
