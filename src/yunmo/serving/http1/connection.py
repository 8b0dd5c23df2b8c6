"""One connection: requests are parsed as they arrive, handled one after the other, and answered in their order."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import httptools
import msgspec

from yunmo.core.errors import Malformed, SlowBody, Unavailable, YunmoError, problem
from yunmo.core.ids import new_request_id
from yunmo.serving.http import BODY_TIMEOUT, PROBLEM
from yunmo.serving.http1.request import Http1Request, status_line
from yunmo.serving.listener import Connected

if TYPE_CHECKING:
    from yunmo.serving.http1.server import Http1Server

MAX_HEAD = 64 * 1024
"""Bytes of a request's line and headers; also of what surrounds a chunked body."""
MAX_HEADERS = 128
HEAD_SECONDS = 15
"""For a request's line and headers, from their first byte: a client that dribbles them is cut off."""
IDLE_SECONDS = 75
"""A connection without a request is closed after so long."""
STALLED_SECONDS = 60
"""So long a client may not take anything of its answer."""
LINGER_SECONDS = 2
"""After the last answer, what still comes is read and thrown away for so long: closing at once would reset the
connection, and with it the answer that the client has not read yet (RFC 9112, 9.6)."""
PIPELINED = 64
"""Requests that wait on one connection; it is not read from meanwhile."""

Handle = Callable[[Http1Request], Awaitable[None]]

_logger = logging.getLogger("yunmo.http")


class Connection(Connected):
    """A connection, and the callbacks of its parser.

    Args:
        server: it came to.
        handle: answers requests.
    """

    def __init__(self, server: Http1Server, handle: Handle) -> None:
        self._server = server
        self._handle = handle
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._overhead = 0
        self._receiving: Http1Request | None = None
        self._current: Http1Request | None = None
        self._waiting: deque[Http1Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._in_head = False
        self._since = server.tick
        self._paused = False
        self._full: asyncio.Event | None = None
        self._stalled_since: int | None = None
        self._unfinished = False
        """The present request has its answer, but its body is still being thrown away."""
        self._ending = False
        """No further request is read; those that were are answered."""
        self._refusal: YunmoError | None = None
        """What is said after them."""
        self._lingering = False
        self._eof = False
        self._closed = False

    # What the request needs.

    @property
    def persists(self) -> bool:
        """Whether the connection goes on after the present answer."""
        return bool(self._waiting) or not (self._ending or self._server.stopping)

    @property
    def old(self) -> bool:
        """Whether the client speaks HTTP/1.0."""
        return bool(self._parser.get_http_version() == "1.0")

    @property
    def date(self) -> bytes:
        """The Date header of this second."""
        return self._server.date

    def write(self, data: bytes) -> None:
        """Send bytes; they wait in memory until the client takes them."""
        if not self._closed:
            self._transport.write(data)

    async def drained(self) -> None:
        """Wait until the client takes what was written."""
        if self._full is not None:
            await self._full.wait()

    def pause(self) -> None:
        """Read no more for now."""
        if not self._paused and not self._closed:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused and not self._closed and self._full is None and len(self._waiting) < PIPELINED:
            self._paused = False
            self._transport.resume_reading()

    def proceed(self, request: Http1Request) -> None:
        """A request waits for its body: read on, and tell a client that waits to be asked for it (RFC 9110, 10.1.1)."""
        self.resume()
        if not request.answered and not request.expected:
            request.expected = True
            if (request.header("expect") or "").lower() == "100-continue":
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def answered(self, request: Http1Request) -> None:
        """A request has its whole answer: go on with the next one, or end."""
        request.ended = True
        if not request.persistent:
            self._end(request)
        elif request.complete:
            self._next()
        else:
            self._unfinished, self._since = True, self._server.tick

    # What the server needs.

    def stop(self) -> None:
        """See `Connected.stop`."""
        if self._receiving is None:  # else its body is still read, and the connection ends with its answer
            self._ending = True
        if self._current is None:
            self.close()

    def abort(self) -> None:
        """See `Connected.abort`."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close when everything written was taken."""
        if self._transport is not None:
            self._transport.close()

    def look(self, tick: int) -> None:
        """See `Connected.look`."""
        if self._stalled_since is not None and tick - self._stalled_since > STALLED_SECONDS:
            self.abort()
        elif self._lingering:
            if tick - self._since > LINGER_SECONDS:
                self.close()
        elif self._current is not None:
            if self._unfinished and tick - self._since > BODY_TIMEOUT:
                self.close()
        elif self._in_head:
            if tick - self._since > HEAD_SECONDS:
                self._refuse(SlowBody("the request's head was not complete in time"))
        elif tick - self._since > IDLE_SECONDS:
            self.close()

    # What the transport calls.

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.BaseProtocol`."""
        self._transport = transport
        if not self._server.enter(self):
            self._refuse(Unavailable("too many connections", remedy="Try again later"))

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._ending:
            return
        if self._receiving is None and not self._in_head:
            self._in_head, self._since = True, self._server.tick
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._not_upgraded(data[upgrade.args[0] :])
            return
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, YunmoError) else Malformed("not an HTTP request"))
            return
        except httptools.HttpParserError:
            self._refuse(Malformed("not an HTTP/1.1 request"))
            return
        if self._overhead > MAX_HEAD and (self._in_head or self._receiving is not None):
            self._refuse(Malformed(f"the request's head has more than {MAX_HEAD} bytes"))

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`: the client sends no more, and mostly that means that it has gone."""
        self._ending = self._eof = True
        for request in (*self._waiting, *([self._current] if self._current else [])):
            request.leave()
        return self._current is not None

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 (asyncio's)
        """See `asyncio.BaseProtocol`."""
        self._closed = True
        self._server.leave(self)
        for request in (*self._waiting, *([self._current] if self._current else [])):
            request.leave()
        self._waiting.clear()
        self.resume_writing()

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._full = asyncio.Event()
        self._stalled_since = self._server.tick
        self.pause()  # who takes no answers gets to ask for no more

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._stalled_since = None
        if self._full is not None:
            self._full.set()
            self._full = None
            if self._current is None and not (self._closed or self._lingering):
                self._next()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._url, self._headers = b"", []
        self._in_head, self._since = True, self._server.tick

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; after the head, one of the trailers, which nobody reads."""
        if self._receiving is None:
            self._headers.append((name.lower(), value))
            if len(self._headers) > MAX_HEADERS:
                raise Malformed(f"the request has more than {MAX_HEADERS} headers")

    def on_headers_complete(self) -> None:
        """The head is complete: the request can be handled."""
        parser = self._parser
        self._in_head = False
        self._overhead = 0
        if self._receiving is not None:
            return  # the head of `_not_upgraded`
        hosts = sum(name == b"host" for name, _ in self._headers)
        if hosts > 1 or (not hosts and parser.get_http_version() == "1.1"):
            raise Malformed("an HTTP/1.1 request has one Host header")
        path, query = _target(self._url)
        request = Http1Request(
            self,
            parser.get_method().decode("ascii"),
            path,
            query,
            self._headers,
            parser.should_keep_alive(),
            new_request_id(),
        )
        self._receiving = request
        if self._current is None:
            self._start(request)
        else:
            self._waiting.append(request)
            if len(self._waiting) >= PIPELINED:
                self.pause()

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        self._overhead = max(0, self._overhead - 16 * len(data))  # chunks of one byte take five more
        if self._receiving is not None:
            self._receiving.feed(data)

    def on_message_complete(self) -> None:
        """The body is complete."""
        if self._parser.should_upgrade():
            return  # it is still to come: see `_not_upgraded`
        request, self._receiving = self._receiving, None
        self._overhead = 0
        self._since = self._server.tick
        if request is not None:
            request.finish()
            if self._unfinished and request is self._current:
                self._unfinished = False
                self._next()

    def _not_upgraded(self, rest: bytes) -> None:
        """Read on after a head that asks for another protocol: the request is answered as it is (RFC 9110, 7.8).

        The parser takes all that follows for the other protocol, so a new one gets it, behind a head that tells the
        body's length. (Java's client asks for HTTP/2 so, with every request and its body.)
        """
        headers = self._receiving.headers if self._receiving is not None else []
        length = [pair for pair in headers if pair[0] in (b"content-length", b"transfer-encoding")]
        self._parser = httptools.HttpRequestParser(self)
        self.data_received(b"POST / HTTP/1.1\r\n%b\r\n%b" % (b"".join(b"%b: %b\r\n" % pair for pair in length), rest))

    def _start(self, request: Http1Request) -> None:
        self._current = request
        self._server.activity.arrived += 1
        self._task = asyncio.get_running_loop().create_task(self._answer(request))

    async def _answer(self, request: Http1Request) -> None:
        self._server.activity.arrived -= 1
        try:
            await self._handle(request)
        except Exception:
            _logger.exception("a request could not be answered", extra={"facts": {"request_id": request.id}})
        if not request.ended:
            self.abort()  # half an answer must not pass for a whole one, and nobody is going to end it

    def _next(self) -> None:
        """Go on with the next request on the connection; without one, end it if it is to end."""
        self._current = None
        self._since = self._server.tick
        if self._full is not None:
            return  # `resume_writing` comes back here
        if self._waiting:
            self._start(self._waiting.popleft())
            self.resume()
        elif self._refusal is not None:
            self._write_refusal(self._refusal)
        elif self._ending:
            self.close()
        else:
            self.resume()

    def _end(self, request: Http1Request) -> None:
        """Close the connection after its last answer."""
        self._current, self._ending = None, True
        self._waiting.clear()
        if request.complete or self._eof:
            self.close()
        else:
            self._linger()

    def _refuse(self, error: YunmoError) -> None:
        """Answer what is no request, after the requests before it; a request whose body it is in fails."""
        self._ending = True
        request, self._receiving = self._receiving, None
        if request is not None:
            request.fail(error)
            if self._unfinished and request is self._current:
                self._end(request)
        elif self._current is None:
            self._write_refusal(error)
        else:
            self._refusal = error

    def _write_refusal(self, error: YunmoError) -> None:
        """Say what is wrong in the only shape that is known here, and close."""
        request_id = new_request_id()
        body = msgspec.json.encode(problem(error, instance=request_id))
        head = (
            f"x-request-id: {request_id}\r\ncontent-type: {PROBLEM}\r\ncontent-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        )
        self.write(b"%b%b%b%b" % (status_line(error.status), self.date, head.encode(), body))
        self._server.refused(error, request_id)
        self._linger()

    def _linger(self) -> None:
        """Close when the client has, or soon: see `LINGER_SECONDS`."""
        self._lingering, self._since = True, self._server.tick
        if not self._closed:
            self._transport.write_eof()
        self.resume()


def _target(url: bytes) -> tuple[str, str]:
    """Return path and query of a request's target (RFC 9112, 3.2).

    Raises:
        Malformed: it is none.
    """
    try:
        text = url.decode("ascii")
    except UnicodeDecodeError:
        raise Malformed("the request's target is not ASCII", remedy="Write other characters as %XX") from None
    if not text.startswith("/"):
        if text == "*":
            return "*", ""
        _, found, rest = text.partition("://")
        if not found:
            raise Malformed("the request's target is no path")
        text = "/" + rest.partition("/")[2]
    path, _, query = text.partition("#")[0].partition("?")
    if "%" in path:
        path = unquote_to_bytes(path).decode("utf-8", "replace")
    return path, query
