"""Telling a training package that is not installed from a defect of ours."""

from __future__ import annotations

from yunmo.core.errors import MissingExtra

_PACKAGES = frozenset({"torch", "sklearn", "onnxscript", "safetensors", "jinja2"})


def missing_extra(error: ImportError, what: str) -> MissingExtra | None:
    """Return the error for a package of the extra ``train`` that is not installed, None if it is something else.

    Args:
        error: what the import raised.
        what: what needs the package, for the message.
    """
    if (error.name or "").partition(".")[0] not in _PACKAGES:
        return None
    return MissingExtra(f"{what} needs {error.name}", remedy="Install it: pip install 'yunmo[train]'")
