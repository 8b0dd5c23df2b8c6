"""What errors are called in gRPC."""

from __future__ import annotations

from enum import IntEnum

from yunmo.core.errors import YunmoError


class Status(IntEnum):
    """How a call ended. Source: github.com/grpc/grpc, doc/statuscodes.md."""

    OK = 0
    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


STATUS: dict[str, Status] = {
    **dict.fromkeys(
        (
            "invalid_input",
            "malformed_request",
            "invalid_recipe",
            "invalid_settings",
            "invalid_data",
            "unsafe_archive",
        ),
        Status.INVALID_ARGUMENT,
    ),
    "unauthenticated": Status.UNAUTHENTICATED,
    "forbidden": Status.PERMISSION_DENIED,
    "not_found": Status.NOT_FOUND,
    **dict.fromkeys(("method_not_allowed", "missing_extra", "unsupported_media_type"), Status.UNIMPLEMENTED),
    **dict.fromkeys(
        ("conflict", "workspace_busy", "invalid_bundle", "integrity", "parity"), Status.FAILED_PRECONDITION
    ),
    **dict.fromkeys(("slow_body", "deadline_exceeded"), Status.DEADLINE_EXCEEDED),
    **dict.fromkeys(("too_large", "too_many_requests", "storage_full"), Status.RESOURCE_EXHAUSTED),
    "unavailable": Status.UNAVAILABLE,
    "cancelled": Status.CANCELLED,
    **dict.fromkeys(("internal", "model_failed", "training_failed"), Status.INTERNAL),
}
"""By code of the error."""


def status_of(error: YunmoError) -> Status:
    """Return the status of an error."""
    return STATUS.get(error.code, Status.INTERNAL)
