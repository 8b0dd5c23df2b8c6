"""The gRPC server, within this process's event loop."""

from __future__ import annotations

import asyncio

import grpc

from yunmo.core.errors import Unavailable
from yunmo.serving.grpc.service import Service

STREAMS = 1024
"""Calls that one connection may have open."""
CALLS = 8192
"""Calls that this process has open at a time; more are refused with RESOURCE_EXHAUSTED."""
CONNECTIONS = 8192
"""Connections that this process serves at a time; idle ones count too."""
METADATA_BYTES = 16 * 1024

_OPTIONS = (
    ("grpc.so_reuseport", 1),  # all data workers share the port; the system spreads connections over them
    ("grpc.max_send_message_length", -1),
    ("grpc.max_concurrent_streams", STREAMS),
    ("grpc.max_allowed_incoming_connections", CONNECTIONS),
    ("grpc.max_metadata_size", METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", METADATA_BYTES),
    # Who connects and says nothing is cut off, as is who does not answer a ping; pings more often are an abuse.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 5),
)


class Server:
    """Serves a service; to be made and used on the event loop.

    Args:
        service: answers calls.
        address: IP address to listen on.
        port: which other processes may share.
        max_message: bytes that a message may have.
    """

    def __init__(self, service: Service, *, address: str, port: int, max_message: int) -> None:
        host = f"[{address}]" if ":" in address else address
        options = (*_OPTIONS, ("grpc.max_receive_message_length", max_message))
        self._stopping: list[asyncio.Task[None]] = []
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=CALLS)
        self._server.add_generic_rpc_handlers((service,))
        try:
            self.port = self._server.add_insecure_port(f"{host}:{port}")
            """The port, also where it was left open by 0."""
        except RuntimeError:
            raise Unavailable("the gRPC port cannot be opened", where=f"{host}:{port}") from None

    async def start(self) -> None:
        """Accept calls."""
        await self._server.start()

    def stop(self, grace: float) -> None:
        """Accept no more calls.

        Args:
            grace: seconds after which those under way are cut off.
        """
        self._stopping.append(asyncio.get_running_loop().create_task(self._server.stop(grace)))

    async def ended(self) -> None:
        """Return when every call has its answer, or the time for it is over."""
        await asyncio.gather(*self._stopping)
