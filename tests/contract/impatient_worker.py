"""A data worker that gives slow clients a second where others get a minute."""

from __future__ import annotations

from yunmo.app import worker
from yunmo.serving.http1 import connection
from yunmo.serving.http1.request import Http1Request

if __name__ == "__main__":
    connection.HEAD_SECONDS = connection.STALLED_SECONDS = connection.LINGER_SECONDS = 1
    connection.IDLE_SECONDS = 2
    connection.BODY_TIMEOUT = 1.0
    defaults = Http1Request.body.__kwdefaults__
    assert defaults is not None
    defaults["timeout"] = 1.0
    worker.main()
