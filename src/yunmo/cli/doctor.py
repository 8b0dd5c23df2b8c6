"""``yunmo doctor``: what is here, what is missing, and the line that installs it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from yunmo import __version__
from yunmo.cli.output import AsJson, emit, facts, say, size
from yunmo.cli.place import home
from yunmo.core.errors import YunmoError

SERVING = (
    "httptools",
    "onnxruntime",
    "fastapi",
    "sqlalchemy",
    "dbos",
    "obstore",
    "model-signing",
    "simplejpeg",
    "numpy",
)
EXTRAS = {
    "train": ("torch", "onnxscript", "safetensors", "scikit-learn", "jinja2"),
    "pretrained": ("transformers", "peft"),
    "parquet": ("pyarrow",),
    "language": ("pystemmer", "rjieba", "textblob"),
    "traces": ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"),
}
"""Optional parts, and the distributions that each needs; a test holds them against the package's metadata."""

SECRETS = {"workspace_key": "workspace.key", "signing_key": "signing.key"}

LITTLE_DISK = 2 * 10**9
LITTLE_MEMORY = 10**9


def doctor(as_json: AsJson = False) -> None:
    """Show versions, machine, settings and workspace, and what is missing."""
    found = examine()
    if as_json:
        emit(found)
        return
    for title, pairs in found.items():
        if title == "advice":
            continue
        say(f"\n[bold]{title.capitalize()}[/bold]")
        facts((name, _readable(value)) for name, value in pairs.items())
    advice = found["advice"]
    say("\n[bold]Advice[/bold]")
    for line in advice:
        say(f"[yellow]![/yellow] {line}")
    if not advice:
        say("[green]✓[/green] Nothing is missing.")


def examine() -> dict[str, Any]:
    """Look at this installation. A part that cannot be looked at says why, and spoils no other."""
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "versions": _versions,
        "machine": _machine,
        "settings": _settings,
        "workspace": _workspace,
    }
    found: dict[str, Any] = {}
    for name, look in parts.items():
        try:
            found[name] = look()
        except (YunmoError, OSError) as error:
            found[name] = {"problem": str(error)}
    found["advice"] = list(_advice(found))
    return found


def _versions() -> dict[str, Any]:
    names = [*SERVING, *(name for extra in EXTRAS.values() for name in extra)]
    return {"yunmo": __version__, "python": platform.python_version(), **{name: _version(name) for name in names}}


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _machine() -> dict[str, Any]:
    import psutil

    memory = psutil.virtual_memory()
    disk = shutil.disk_usage(_existing(home()))
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": usable_cores(),
        "memory": memory.total,
        "memory_free": memory.available,
        "disk_free": disk.free,
        "bf16": bf16(_processor_flags()),
    }


def usable_cores() -> int:
    """Return the cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def bf16(flags: frozenset[str]) -> str:
    """Say, from a processor's flags, whether it computes in bfloat16 itself."""
    if "amx_bf16" in flags:
        return "yes (AMX)"
    if flags & {"avx512_bf16", "bf16"}:
        return "yes"
    return "no" if flags else "unknown"


def _processor_flags() -> frozenset[str]:
    """Return the flags that Linux lists for the first core, an empty set elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _settings() -> dict[str, Any]:
    """Return every setting with its value and where it comes from."""
    import msgspec
    import yaml

    from yunmo.core.settings import ENVIRONMENT_PREFIX, load_settings

    path = home() / "settings.yaml"
    text = path.read_text(encoding="utf-8") if path.is_file() else None
    settings = load_settings(text, os.environ, where=str(path))
    written = yaml.safe_load(text) if text else None
    found = {}
    for name, value in msgspec.structs.asdict(settings).items():
        variable = ENVIRONMENT_PREFIX + name.upper()
        source = variable if variable in os.environ else str(path) if name in (written or {}) else "default"
        found[name] = {"value": value, "from": source}
    return found


def _workspace() -> dict[str, Any]:
    """Look at the workspace without making one."""
    folder = home()
    found: dict[str, Any] = {
        "folder": str(folder),
        "from": "YUNMO_HOME" if os.environ.get("YUNMO_HOME") else "default",
        "exists": folder.is_dir(),
        "url": os.environ.get("YUNMO_URL", "not set"),
        "api_key": "set" if os.environ.get("YUNMO_API_KEY") else "not set",
    }
    if not folder.is_dir():
        return found
    from yunmo.store.workspace import Workspace

    workspace = Workspace(folder)
    holder = workspace.holder()
    found["service"] = "not running" if holder is None else holder.address or f"process {holder.pid}, for itself"
    return found | {name: key_state(folder / file) for name, file in SECRETS.items()}


def key_state(path: Path) -> str:
    """Say whether a secret's file is there and readable by its owner alone."""
    if not path.is_file():
        return "not made yet (made on first use)"
    mode = path.stat().st_mode & 0o777
    return "there, readable by its owner only" if mode & 0o077 == 0 else f"open to others (mode {mode:o})"


def _advice(found: dict[str, Any]) -> Iterator[str]:
    versions, machine, workspace = found["versions"], found["machine"], found["workspace"]
    for name, part in found.items():
        if "problem" in part:
            yield f"{name}: {part['problem']}"
    lacking = [name for name in SERVING if versions.get(name) is None]
    if lacking:
        yield f"missing: {', '.join(lacking)}. Install: pip install --upgrade yunmo"
    for extra, names in EXTRAS.items():
        lacking = [name for name in names if versions.get(name) is None]
        if lacking:
            yield f"missing for the extra {extra!r}: {', '.join(lacking)}. Install: pip install 'yunmo[{extra}]'"
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        yield "Python 3.11 to 3.13 is supported; make a virtual environment with one of them"
    if machine.get("disk_free", LITTLE_DISK) < LITTLE_DISK:
        yield f"only {size(machine['disk_free'])} of disk are free where the workspace is"
    if machine.get("memory_free", LITTLE_MEMORY) < LITTLE_MEMORY:
        yield f"only {size(machine['memory_free'])} of memory are free: training may be killed"
    for name, file in SECRETS.items():
        if str(workspace.get(name, "")).startswith("open"):
            yield f"others can read {file}: chmod 600 {workspace['folder']}/{file}"


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        origin = value["from"]
        shown = "decided" if value["value"] is None else value["value"]
        return f"{shown}  [{origin}]"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and value > 10**6:
        return size(value)
    return "missing" if value is None else str(value)
