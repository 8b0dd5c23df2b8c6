"""Virtual environments of the peers, one each, made once under the cache folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.serving.places import ROOT, Failed, cache_folder

_ONNX_RUNTIME = ("onnxruntime", "numpy", "pillow")
"""The same versions for all, from the repository's constraints."""
_NEEDS: dict[str, tuple[str, ...]] = {
    "fastapi": ("fastapi", "uvicorn[standard]", "pydantic"),
    "servers": ("granian>=2.8", "uvicorn[standard]"),
    "litserve": ("litserve==0.2.19", "python-multipart"),
    # uvloop 0.23 breaks MLServer's worker processes.
    "mlserver": ("mlserver==1.7.1", "uvloop==0.21.0"),
}
_SHOWN = {
    "fastapi": ("fastapi", "uvicorn", "pydantic", "onnxruntime"),
    "litserve": ("litserve", "fastapi", "uvicorn", "onnxruntime"),
    "mlserver": ("mlserver", "fastapi", "uvicorn", "uvloop", "onnxruntime"),
}
_FORBIDDEN = ("torch", "nvidia")


def python(name: str) -> Path:
    """Return the Python of a peer's environment; it is made if it is not there, or other packages are wanted now.

    Raises:
        Failed: pip failed.
    """
    name = _environment(name)
    folder = cache_folder() / name
    wanted = json.dumps([_NEEDS[name], _pinned()])
    mark = folder / "packages.json"
    program = folder / "bin/python"
    if mark.exists() and mark.read_text() == wanted and program.exists():
        return program
    print(f"  installing {name} into {folder} ...", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    command = [str(program), "-m", "pip", "install", "-q", "--disable-pip-version-check", *_NEEDS[name], *_pinned()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"the environment of {name} could not be made: {done.stderr.strip()[-1000:]}")
    heavy = [package for package in versions(name) if package.startswith(_FORBIDDEN)]
    if heavy:
        raise Failed(f"the environment of {name} has {', '.join(heavy)}, which nothing here needs")
    mark.write_text(wanted)
    return program


def _environment(name: str) -> str:
    return name.removesuffix("-loop")


def versions(name: str) -> dict[str, str]:
    """Return the version of every package in a peer's environment."""
    program = cache_folder() / _environment(name) / "bin/python"
    command = [str(program), "-m", "pip", "list", "--disable-pip-version-check", "--format", "json"]
    listing = subprocess.run(command, check=True, capture_output=True, text=True)
    return {entry["name"].lower(): entry["version"] for entry in json.loads(listing.stdout)}


def describe(name: str) -> str:
    """Return the versions that matter, as one line."""
    found = versions(name)
    return ", ".join(f"{package} {found[package]}" for package in _SHOWN[_environment(name)])


def _pinned() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line.split(";")[0].strip() for line in lines if line.split("==")[0] in _ONNX_RUNTIME]
