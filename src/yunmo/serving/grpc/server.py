"""The gRPC server of one process, within its event loop."""

from __future__ import annotations

from yunmo.serving.grpc.service import Service
from yunmo.serving.http2.connection import Http2Server
from yunmo.serving.http2.stream import Stream


class GrpcServer(Http2Server):
    """Serves a service; several processes may serve the same port.

    Args:
        service: answers calls.
        address: IP address to listen on.
        port: which other processes may share.
    """

    def __init__(self, service: Service, *, address: str, port: int) -> None:
        super().__init__(address=address, port=port)
        self._service = service

    def begin(self, stream: Stream) -> None:
        """See `Http2Server.begin`."""
        self._service.begin(stream)
