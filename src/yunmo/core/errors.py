"""One error class per meaning.

Every error carries a stable ``code``, an HTTP ``status`` and, where one exists, a ``remedy``. Faces (CLI, REST, …)
translate them once, at their edge; nothing below a face knows about HTTP bodies or exit codes.
"""

from __future__ import annotations

from typing import ClassVar


class YunmoError(Exception):
    """Base of every error that a user may see.

    Args:
        message: what is wrong, in one sentence without a final full stop.
        where: the file, row, field or key it is about, such as ``train.csv, row 7, field age``.
        remedy: what the user can do about it.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, message: str, *, where: str | None = None, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        """One line: where, what, remedy."""
        text = f"{self.where}: {self.message}" if self.where else self.message
        stop = "" if text.endswith(("?", "!")) else "."
        return f"{text}{stop} {self.remedy}" if self.remedy else text

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.where, self.remedy))


def _rebuild(kind: type[YunmoError], message: str, where: str | None, remedy: str | None) -> YunmoError:
    return kind(message, where=where, remedy=remedy)


class InvalidInput(YunmoError):
    """A request, argument or value that does not fit what was asked for."""

    code = "invalid_input"
    status = 422
    title = "Invalid input"


class Malformed(InvalidInput):
    """Bytes that are no request at all."""

    code = "malformed_request"
    status = 400
    title = "Malformed request"


class RecipeError(InvalidInput):
    """A recipe that cannot be read or that contradicts itself or its data."""

    code = "invalid_recipe"
    title = "Invalid recipe"


class SettingsError(InvalidInput):
    """A settings file or ``YUNMO_*`` variable that cannot be used."""

    code = "invalid_settings"
    title = "Invalid settings"


class DataError(InvalidInput):
    """Data that cannot be read, or that no model can be trained on."""

    code = "invalid_data"
    title = "Invalid data"


class UnsafeArchive(DataError):
    """An archive with ``..``, links, too many entries or far too much content for its size."""

    code = "unsafe_archive"
    title = "Unsafe archive"


class Unauthenticated(YunmoError):
    """No key, or none that is valid."""

    code = "unauthenticated"
    status = 401
    title = "No valid key"


class Forbidden(YunmoError):
    """A valid key without the right that is needed."""

    code = "forbidden"
    status = 403
    title = "Not allowed"


class NotFound(YunmoError):
    """Something named that is not there (or that the caller may not know to be there)."""

    code = "not_found"
    status = 404
    title = "Not found"


class MethodNotAllowed(YunmoError):
    """A known path called with a method it does not have."""

    code = "method_not_allowed"
    status = 405
    title = "Method not allowed"


class Conflict(YunmoError):
    """An operation that the present state does not allow."""

    code = "conflict"
    status = 409
    title = "Conflict"


class WorkspaceBusy(Conflict):
    """Another process holds the workspace."""

    code = "workspace_busy"
    title = "Workspace in use"


class SlowBody(YunmoError):
    """A request whose body did not arrive in time."""

    code = "slow_body"
    status = 408
    title = "Body too slow"


class BodyTooLarge(YunmoError):
    """A body, picture or archive over its limit."""

    code = "too_large"
    status = 413
    title = "Too large"


class UnsupportedMediaType(YunmoError):
    """A content type that the route does not read."""

    code = "unsupported_media_type"
    status = 415
    title = "Unsupported media type"


class TooManyRequests(YunmoError):
    """A limit of rate, queue or concurrency is reached; try again later."""

    code = "too_many_requests"
    status = 429
    title = "Too many requests"


class ModelFailed(YunmoError):
    """The model could not compute an answer."""

    code = "model_failed"
    status = 500
    title = "The model failed"


class Unavailable(YunmoError):
    """A part of the service that cannot answer at present."""

    code = "unavailable"
    status = 503
    title = "Unavailable"


class DeadlineExceeded(YunmoError):
    """No answer within the time allowed."""

    code = "deadline_exceeded"
    status = 504
    title = "Deadline exceeded"


class BundleError(YunmoError):
    """A bundle that cannot be used: not one, damaged, or made by a newer Yunmo."""

    code = "invalid_bundle"
    status = 422
    title = "Invalid bundle"


class IntegrityError(BundleError):
    """A bundle whose files are not those that were signed."""

    code = "integrity"
    title = "Bundle refused"


class ParityError(BundleError):
    """The packed model does not give the answers of the trained one."""

    code = "parity"
    title = "Packed model differs"


class StorageFull(YunmoError):
    """No space left where something had to be written; nothing half written was kept."""

    code = "storage_full"
    status = 507
    title = "Storage full"


class MissingExtra(YunmoError):
    """A feature whose optional dependencies are not installed."""

    code = "missing_extra"
    status = 501
    title = "Not installed"


class TrainingFailed(YunmoError):
    """Training ended without a usable model (loss became NaN, the process was killed, …)."""

    code = "training_failed"
    status = 500
    title = "Training failed"


class Cancelled(YunmoError):
    """Stopped because someone asked for it."""

    code = "cancelled"
    status = 409
    title = "Cancelled"


class InternalError(YunmoError):
    """A defect of Yunmo's; the log has the details, the caller gets none."""


ERRORS: dict[str, type[YunmoError]] = {
    kind.code: kind
    for kind in (
        InvalidInput,
        Malformed,
        RecipeError,
        SettingsError,
        DataError,
        UnsafeArchive,
        Unauthenticated,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        Conflict,
        WorkspaceBusy,
        SlowBody,
        BodyTooLarge,
        UnsupportedMediaType,
        TooManyRequests,
        ModelFailed,
        Unavailable,
        DeadlineExceeded,
        BundleError,
        IntegrityError,
        ParityError,
        StorageFull,
        MissingExtra,
        TrainingFailed,
        Cancelled,
        InternalError,
    )
}
"""Every error by its code: how a client or a parent process turns a received code back into a class."""


def problem(error: YunmoError, *, instance: str | None = None) -> dict[str, object]:
    """Return the RFC 9457 problem document of an error.

    Args:
        error: what went wrong.
        instance: the id of the request, so that a user and a log line can be brought together.
    """
    document: dict[str, object] = {
        "type": f"urn:yunmo:error:{error.code}",
        "title": error.title,
        "status": error.status,
        "code": error.code,
        "detail": error.message,
    }
    optional = {"where": error.where, "remedy": error.remedy, "instance": instance}
    return document | {key: value for key, value in optional.items() if value is not None}


def from_problem(document: dict[str, object]) -> YunmoError:
    """Return the error that a problem document describes (the inverse of `problem`)."""
    kind = ERRORS.get(str(document.get("code")), InternalError)
    where, remedy = document.get("where"), document.get("remedy")
    return kind(
        str(document.get("detail") or document.get("title") or "unknown error"),
        where=str(where) if where is not None else None,
        remedy=str(remedy) if remedy is not None else None,
    )
