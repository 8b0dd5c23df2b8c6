"""Settings of an installation: one file (``settings.yaml`` in the workspace) and ``YUNMO_*`` variables over it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta

from yunmo.core.errors import SettingsError
from yunmo.core.schema import Spec, convert

ENVIRONMENT_PREFIX = "YUNMO_"
OUTSIDE_SETTINGS = frozenset({"YUNMO_HOME", "YUNMO_URL", "YUNMO_API_KEY"})
"""Variables that say where to work, and so are no settings of the place itself."""

Isolate = Literal["crashed", "always", "never"]
"""Which models run in a process of their own."""


class Settings(Spec, frozen=True):
    """Every setting with its default."""

    host: Annotated[str, Meta(description="address to listen on; anything but loopback is reachable by others")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Meta(ge=0, le=65535, description="HTTP port; 0: any free one")] = 8080
    grpc_port: Annotated[
        Annotated[int, Meta(ge=0, le=65535)] | None, Meta(description="gRPC port; 0: any free one; null: no gRPC")
    ] = 8081
    workers: Annotated[
        Annotated[int, Meta(ge=1, le=256)] | None, Meta(description="data workers; null: one per core")
    ] = None
    runs: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description="batches of one model that a data worker runs at a time; workers: 1 with runs: 2 serves two "
            "cores with the memory of one worker",
        ),
    ] = 1
    threads: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="cores a training job may use; null: all")
    ] = None
    jobs: Annotated[int, Meta(ge=1, le=64, description="runs at a time; the others wait in a queue")] = 1
    max_body: Annotated[int, Meta(ge=1024, description="bytes of a prediction request")] = 16 * 2**20
    max_upload: Annotated[int, Meta(ge=1024, description="bytes of an uploaded file")] = 4 * 2**30
    max_pixels: Annotated[int, Meta(ge=1, description="pixels of a picture that is decoded")] = 50_000_000
    request_timeout: Annotated[float, Meta(gt=0, description="seconds a prediction may take")] = 30.0
    deploy_timeout: Annotated[
        float, Meta(gt=0, description="seconds until every worker must have loaded a version")
    ] = 60.0
    standby_seconds: Annotated[
        float, Meta(ge=0, description="seconds a replaced version stays loaded for a rollback at once; 0: not at all")
    ] = 600.0
    isolate: Annotated[
        Isolate,
        Meta(
            description="which models run in a process of their own, at some cost a batch; crashed: those that ended "
            "a data worker once"
        ),
    ] = "crashed"
    drain_timeout: Annotated[float, Meta(gt=0, description="seconds running requests get to end at shutdown")] = 10.0
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="least level logged")] = "info"
    request_log: Annotated[
        Literal["all", "errors", "off"], Meta(description="which requests get a line in the log")
    ] = "all"
    metrics: Annotated[bool, Meta(description="count what /metrics shows")] = True
    traces: Annotated[
        Annotated[str, Meta(pattern=r"^https?://[^\s/]+")] | None,
        Meta(description="OpenTelemetry collector (OTLP over HTTP) that gets traces of requests; null: none"),
    ] = None


def load_settings(text: str | None, environment: Mapping[str, str], *, where: str = "settings.yaml") -> Settings:
    """Read settings from the text of a settings file (if there is one), then the environment.

    Raises:
        SettingsError: an unknown key or variable, or a value that does not fit.
    """
    try:
        data: Any = yaml.safe_load(text) if text else {}
    except yaml.YAMLError as error:
        raise SettingsError(f"not valid YAML: {getattr(error, 'problem', error)}", where=where) from None
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise SettingsError("settings are a mapping of keys", where=where)
    convert(data, Settings, what=where, error=SettingsError)
    known = {
        name: name.removeprefix(ENVIRONMENT_PREFIX).lower()
        for name in environment
        if name.startswith(ENVIRONMENT_PREFIX)
    }
    overrides = {key: yaml.safe_load(environment[name]) for name, key in known.items() if name not in OUTSIDE_SETTINGS}
    fields = [field.name for field in msgspec.structs.fields(Settings)]
    for key in overrides:
        if key not in fields:
            raise SettingsError(
                f"no setting is called {key!r}",
                where=f"environment, {ENVIRONMENT_PREFIX}{key.upper()}",
                remedy=f"Known: {', '.join(fields)}",
            )
    return convert({**data, **overrides}, Settings, what="settings", error=SettingsError)
