"""A request on a connection as one of ASGI 3.0, for applications that are written against that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from yunmo.serving.http import App, ClientGone, Message, Response, Scope
from yunmo.serving.http1.request import Http1Request


class Bridge:
    """ASGI's view of a request: pass ``scope``, `receive` and `send` to an application.

    Args:
        request: what is asked.
    """

    def __init__(self, request: Http1Request) -> None:
        self.scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": request.path,
            "query_string": request.query.encode("latin-1"),
            "headers": list(request.headers),
        }
        self._request = request
        self._more = True
        self._start: Message = {}
        self._streaming = False

    async def receive(self) -> Message:
        """Return the next part of the body; after it, wait until the client has gone."""
        if not self._more:
            await self._request.left()
            return {"type": "http.disconnect"}
        try:
            body, self._more = await self._request.receive()
        except ClientGone:
            self._more = False
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": body, "more_body": self._more}

    async def send(self, message: Message) -> None:
        """Send the head, or a part of the body, of the answer.

        Raises:
            ClientGone: the client left.
        """
        if message["type"] == "http.response.start":
            self._start = message
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if not self._streaming:
            status = self._start["status"]
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self._start["headers"]]
            if not more:
                plain = tuple(pair for pair in headers if pair[0] != "content-length")
                if body or len(plain) == len(headers):
                    self._request.send(Response(status, body, "", plain))
                else:  # to HEAD: the length is that of GET's answer
                    self._request.start(status, headers)
                    self._request.end()
                return
            self._streaming = True
            self._request.start(status, headers)
        if body:
            await self._request.send_part(body)
        if not more:
            self._request.end()


def serve_asgi(app: App) -> Callable[[Http1Request], Awaitable[None]]:
    """Return what answers requests with an ASGI application, whose lifespan is the caller's."""

    async def handle(request: Http1Request) -> None:
        bridge = Bridge(request)
        await app(bridge.scope, bridge.receive, bridge.send)

    return handle
