"""Management requests, passed on to the control process over its Unix socket, streaming both ways.

The socket is used bare, not as an asyncio stream: control may answer and close before it has read the whole body (an
upload it refuses), and a stream whose writing fails throws away what could still be read.
"""

from __future__ import annotations

import asyncio
import base64
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote

import h11
import msgspec

from yunmo.core.errors import BodyTooLarge, InvalidInput, Unavailable
from yunmo.serving.http import PRINCIPAL, REQUEST_ID, ClientGone, Receive, Scope, Send

CONNECT_TIMEOUT = 5.0
_CHUNK = 256 * 1024

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer upgrade expect".split()
)
# The server in front sets these itself; the id is the gate's.
_NOT_BACK = _HOP_BY_HOP | {b"date", b"server", b"x-request-id", b"transfer-encoding"}


class ControlProxy:
    """ASGI application that answers with what control answers.

    Args:
        socket: control's Unix socket.
        max_upload: bytes that a request body may have.
    """

    def __init__(self, socket: Path, *, max_upload: int) -> None:
        self._socket = str(socket)
        self._max_upload = max_upload
        self._streams: set[asyncio.Task[None]] = set()

    def close_streams(self) -> None:
        """Cut the streams of events that would never end by themselves; their readers come back and go on."""
        for task in self._streams:
            task.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on and its answer back.

        Raises:
            Unavailable: control does not answer.
            BodyTooLarge: the body has more than ``max_upload`` bytes.
            InvalidInput: characters that HTTP does not allow.
            ClientGone: the client left; control's work on the request is cancelled.
        """
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), None)
        if declared is not None and declared.isdigit() and int(declared) > self._max_upload:
            raise self._too_large()
        with socket.socket(socket.AF_UNIX) as stream:
            stream.setblocking(False)
            await self._connect(stream)
            await self._exchange(scope, receive, send, stream)

    async def _connect(self, stream: socket.socket) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await asyncio.get_running_loop().sock_connect(stream, self._socket)
        except (OSError, TimeoutError):
            raise Unavailable("management is not available at present; predictions go on", remedy="Try again") from None

    async def _exchange(self, scope: Scope, receive: Receive, send: Send, stream: socket.socket) -> None:
        connection = h11.Connection(h11.CLIENT)
        try:
            head = connection.send(_request(scope)) or b""
        except h11.LocalProtocolError:
            raise InvalidInput("the request's address or a header has characters that HTTP does not allow") from None
        up = asyncio.ensure_future(self._send_request(head, receive, connection, stream))
        down = asyncio.ensure_future(self._send_answer(connection, stream, send))
        try:
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            if not down.done():
                up.result()  # raises unless control has just stopped reading
            try:
                await down
            except asyncio.CancelledError:
                # Cut by `close_streams`: the server must cut the client's connection, not end the answer.
                raise ConnectionResetError("stream closed for shutdown") from None
        finally:
            up.cancel()
            down.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _send_request(
        self, head: bytes, receive: Receive, connection: h11.Connection, stream: socket.socket
    ) -> None:
        """Send the request with its body, then watch for the client to leave."""
        loop = asyncio.get_running_loop()
        size = 0
        try:
            await loop.sock_sendall(stream, head)
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                if chunk := message.get("body", b""):
                    size += len(chunk)
                    if size > self._max_upload:
                        raise self._too_large()
                    await loop.sock_sendall(stream, connection.send(h11.Data(data=chunk)) or b"")
                if not message.get("more_body", False):
                    break
            await loop.sock_sendall(stream, connection.send(h11.EndOfMessage()) or b"")
        except (ConnectionError, h11.LocalProtocolError):
            return  # control has answered before the end of the body, or died: the answer's side knows which
        while (await receive())["type"] != "http.disconnect":
            pass
        raise ClientGone

    async def _send_answer(self, connection: h11.Connection, stream: socket.socket, send: Send) -> None:
        loop = asyncio.get_running_loop()
        started = False
        try:
            while True:
                event: Any = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await loop.sock_recv(stream, _CHUNK))
                elif isinstance(event, h11.Response):
                    headers = [(bytes(name), bytes(value)) for name, value in event.headers if name not in _NOT_BACK]
                    self._note_stream(headers)
                    started = True
                    await send({"type": "http.response.start", "status": event.status_code, "headers": headers})
                elif isinstance(event, h11.Data):
                    await send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
                elif isinstance(event, h11.EndOfMessage):
                    await send({"type": "http.response.body", "body": b""})
                    return
                elif isinstance(event, h11.ConnectionClosed):
                    raise ConnectionResetError("control closed the connection")
        except (h11.RemoteProtocolError, ConnectionError) as error:
            if started:
                raise
            raise Unavailable(
                "the management process ended before it answered", remedy="Look whether it was done, then try again"
            ) from error

    def _note_stream(self, headers: list[tuple[bytes, bytes]]) -> None:
        task = asyncio.current_task()
        if task is not None and any(n == b"content-type" and v.startswith(b"text/event-stream") for n, v in headers):
            self._streams.add(task)
            task.add_done_callback(self._streams.discard)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            f"the body has more than {self._max_upload} bytes", remedy="Send less, or raise the setting max_upload"
        )


def _request(scope: Scope) -> h11.Request:
    """Return the request as control gets it: with the principal, without what ends at this hop."""
    path = scope.get("raw_path") or quote(scope["path"]).encode()
    query = scope.get("query_string", b"")
    headers = [(name, value) for name, value in scope["headers"] if name not in _HOP_BY_HOP]
    if all(name != b"host" for name, _ in headers):
        headers.insert(0, (b"host", b"yunmo"))
    principal = base64.b64encode(msgspec.json.encode(scope[PRINCIPAL]))
    headers += [(b"x-yunmo-principal", principal), (b"x-yunmo-request-id", scope[REQUEST_ID].encode())]
    return h11.Request(method=scope["method"], target=path + (b"?" + query if query else b""), headers=headers)
