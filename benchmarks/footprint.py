"""How big Yunmo is: packages and megabytes of the core and training installs, import time, memory of a data worker.

Run it as ``python benchmarks/footprint.py [--training]``. It makes virtual environments in a temporary folder, installs
this checkout into them with the constraints file, and measures there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def install(folder: Path, what: str) -> Path:
    """Make an environment with ``what`` installed and return its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin/python"
    command = [
        python,
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "-c",
        ROOT / "constraints.txt",
        what,
    ]
    subprocess.run(command, check=True)
    return python


def packages(python: Path) -> tuple[int, float]:
    """Return the number of installed packages (without pip and setuptools) and their megabytes on disk."""
    listing = subprocess.run(
        [python, "-m", "pip", "list", "--format", "json"], check=True, capture_output=True, text=True
    )
    names = {entry["name"] for entry in json.loads(listing.stdout)} - {"pip", "setuptools"}
    site = next((python.parent.parent / "lib").glob("python*")) / "site-packages"
    files = [
        path for path in site.rglob("*") if path.is_file() and path.parts[len(site.parts)] not in ("pip", "setuptools")
    ]
    return len(names), sum(path.stat().st_size for path in files) / 2**20


def import_seconds(python: Path) -> float:
    """Return the median seconds of a process that imports yunmo, less those of one that imports nothing."""

    def median(code: str) -> float:
        times = []
        for _ in range(7):
            began = time.perf_counter()
            subprocess.run([python, "-c", code], check=True)
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    return median("import yunmo") - median("pass")


def worker_memory(python: Path, home: Path) -> dict[str, float]:
    """Start the service and return the resident megabytes (and their proportional share) of one data worker."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("YUNMO_")}
    command = [python, "-m", "yunmo.cli", "up", "--port", "18080"]
    with subprocess.Popen(
        command,
        env=environment | {"YUNMO_HOME": str(home), "YUNMO_WORKERS": "2"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as service:
        try:
            for _ in range(300):
                try:
                    urllib.request.urlopen("http://127.0.0.1:18080/readyz", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.2)
            workers = [int(path.stem) for path in (home / "run/workers").glob("*.json")]
            memory = {}
            for name in ("Rss", "Pss"):
                lines = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in workers]
                kilobytes = [int(text.split(f"\n{name}:")[1].split()[0]) for text in lines]
                memory[name] = max(kilobytes) / 1024
            return memory
        finally:
            service.terminate()
            service.wait(30)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training", action="store_true", help="measure the training install too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        core = install(Path(folder, "core"), str(ROOT))
        count, megabytes = packages(core)
        print(f"core install: {count} packages, {megabytes:.0f} MB")
        print(f"import yunmo: {import_seconds(core):.3f} s")
        memory = worker_memory(core, Path(folder, "home"))
        print(f"data worker before any model: {memory['Rss']:.1f} MB resident, {memory['Pss']:.1f} MB proportional")
        if arguments.training:
            count, megabytes = packages(install(Path(folder, "train"), f"{ROOT}[train]"))
            print(f"training install: {count} packages, {megabytes:.0f} MB")


if __name__ == "__main__":
    main()
