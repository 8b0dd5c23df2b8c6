"""What errors are called in gRPC."""

from __future__ import annotations

import grpc

from yunmo.core.errors import YunmoError

_CODES = grpc.StatusCode

STATUS: dict[str, grpc.StatusCode] = {
    **dict.fromkeys(
        (
            "invalid_input",
            "malformed_request",
            "invalid_recipe",
            "invalid_settings",
            "invalid_data",
            "unsafe_archive",
            "too_large",
            "unsupported_media_type",
        ),
        _CODES.INVALID_ARGUMENT,
    ),
    "unauthenticated": _CODES.UNAUTHENTICATED,
    "forbidden": _CODES.PERMISSION_DENIED,
    "not_found": _CODES.NOT_FOUND,
    **dict.fromkeys(("method_not_allowed", "missing_extra"), _CODES.UNIMPLEMENTED),
    **dict.fromkeys(
        ("conflict", "workspace_busy", "invalid_bundle", "integrity", "parity"), _CODES.FAILED_PRECONDITION
    ),
    **dict.fromkeys(("slow_body", "deadline_exceeded"), _CODES.DEADLINE_EXCEEDED),
    **dict.fromkeys(("too_many_requests", "storage_full"), _CODES.RESOURCE_EXHAUSTED),
    "unavailable": _CODES.UNAVAILABLE,
    "cancelled": _CODES.CANCELLED,
    **dict.fromkeys(("internal", "model_failed", "training_failed"), _CODES.INTERNAL),
}
"""By code of the error; the meaning of gRPC's codes: github.com/grpc/grpc, doc/statuscodes.md."""


def status_of(error: YunmoError) -> grpc.StatusCode:
    """Return the status of an error."""
    return STATUS.get(error.code, _CODES.INTERNAL)
