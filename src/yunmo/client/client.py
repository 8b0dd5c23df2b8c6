"""The clients: one table of methods, and two ways to carry them out, blocking and asynchronous.

``Client`` and ``AsyncClient`` have the same methods with the same arguments; those of ``AsyncClient`` are awaited.

    with Client("http://127.0.0.1:8080", key) as client:
        run = client.train({"data": {"train": "pets.zip"}}, folder=".")
        for envelope in client.events(run.id):
            print(envelope.event)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from yunmo.client import requests
from yunmo.client.call import Call, FileBody, Flow, Steps, Work, download
from yunmo.client.stream import EventReader
from yunmo.core.errors import DeadlineExceeded, InvalidInput, Unavailable, YunmoError, from_problem
from yunmo.core.events import Envelope

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_TIMEOUT = 60.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class _Method(Generic[P, T]):
    """A function of ``requests`` as a method: it answers at once on `Client`, and is awaited on `AsyncClient`."""

    def __init__(self, build: Callable[P, Flow[T]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Callable[P, Flow[T]]: ...
    @overload
    def __get__(self, client: Client, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, client: Any, owner: type) -> Any:
        build = self._build
        if client is None:
            return build

        @wraps(build)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client.perform(build(*args, **kwargs))

        return method


class _Methods:
    """Everything a client can ask for. The functions and their documentation are in ``requests``."""

    upload = _Method(requests.upload)
    add_dataset = _Method(requests.add_dataset)
    datasets = _Method(requests.datasets)
    dataset = _Method(requests.dataset)
    train = _Method(requests.train)
    runs = _Method(requests.runs)
    run = _Method(requests.run)
    cancel = _Method(requests.cancel)
    resume = _Method(requests.resume)
    log = _Method(requests.log)
    report = _Method(requests.report)
    report_html = _Method(requests.report_html)
    models = _Method(requests.models)
    versions = _Method(requests.versions)
    model = _Method(requests.model)
    model_report = _Method(requests.model_report)
    model_bom = _Method(requests.model_bom)
    verify = _Method(requests.verify)
    export = _Method(requests.export)
    import_bundle = _Method(requests.import_bundle)
    import_model = _Method(requests.import_model)
    alias = _Method(requests.alias)
    evaluate = _Method(requests.evaluate)
    deploy = _Method(requests.deploy)
    rollback = _Method(requests.rollback)
    endpoints = _Method(requests.endpoints)
    endpoint = _Method(requests.endpoint)
    set_endpoint = _Method(requests.set_endpoint)
    delete_endpoint = _Method(requests.delete_endpoint)
    schema = _Method(requests.schema)
    predict = _Method(requests.predict)
    predict_raw = _Method(requests.predict_raw)
    start_job = _Method(requests.start_job)
    jobs = _Method(requests.jobs)
    job = _Method(requests.job)
    cancel_job = _Method(requests.cancel_job)
    resume_job = _Method(requests.resume_job)
    keys = _Method(requests.keys)
    create_key = _Method(requests.create_key)
    create_first_key = _Method(requests.create_first_key)
    revoke_key = _Method(requests.revoke_key)

    def __init__(
        self, url: str, key: str | None = None, *, uds: str | Path | None = None, timeout: float = DEFAULT_TIMEOUT
    ) -> None:
        """Prepare a client; nothing is sent yet.

        Args:
            url: base URL of the service, such as ``http://127.0.0.1:8080``.
            key: ``ym_...``; it is sent with every request and shown in no message.
            uds: path of a Unix socket to connect to instead of the URL's host.
            timeout: seconds that an answer may take; transfers of files, deployments and evaluations may take longer.

        Raises:
            InvalidInput: the URL is none, or the key has characters that no key has.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidInput(
                f"{url!r} is not an http or https URL", where="URL", remedy="Write http://127.0.0.1:8080, say"
            )
        if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
            raise InvalidInput("the key has characters that no key has", where="key", remedy="It begins with ym_")
        self.url = url.rstrip("/")
        self.uds = Path(uds) if uds is not None else None
        self._timeout = timeout
        self._options: dict[str, Any] = {
            "base_url": self.url,
            "headers": {"authorization": f"Bearer {key}"} if key else {},
            "timeout": httpx.Timeout(timeout, connect=10.0),
            "trust_env": uds is None and parts.hostname not in _LOOPBACK,
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def _request(self, http: httpx.Client | httpx.AsyncClient, call: Call[Any]) -> httpx.Request:
        content: Any = call.body
        if isinstance(call.body, FileBody):
            content = call.body.achunks() if isinstance(http, httpx.AsyncClient) else call.body.chunks()
        timeout = httpx.Timeout(self._timeout, connect=10.0, read=None if call.patient else self._timeout)
        return http.build_request(
            call.method,
            call.path,
            params=call.params or None,
            headers=dict(call.headers),
            content=content,
            timeout=timeout,
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn httpx's errors, which hold the request and so the key, into ours."""
        try:
            yield
        except httpx.ConnectError:
            raise Unavailable(
                "no service answers there", where=self.url, remedy="Start it with `yunmo up`, or check YUNMO_URL"
            ) from None
        except httpx.TimeoutException:
            raise DeadlineExceeded(f"no answer within {self._timeout:g} seconds", where=self.url) from None
        except httpx.TransportError as error:
            raise Unavailable(f"the connection broke ({type(error).__name__})", where=self.url) from None


class Client(_Methods):
    """The blocking client. Use it as a context manager, or ``close`` it. Arguments: see ``_Methods.__init__``."""

    def __init__(
        self, url: str, key: str | None = None, *, uds: str | Path | None = None, timeout: float = DEFAULT_TIMEOUT
    ) -> None:
        super().__init__(url, key, uds=uds, timeout=timeout)
        transport = httpx.HTTPTransport(uds=str(uds)) if uds else None
        self._http = httpx.Client(transport=transport, **self._options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def perform(self, flow: Flow[T]) -> T:
        """Carry out a call or flow of ``requests`` and return its result."""
        steps = Steps(flow)
        while steps.action is not None:
            try:
                result = steps.action.do() if isinstance(steps.action, Work) else self._send(steps.action)
            except Exception as error:
                steps.fail(error)
            else:
                steps.answer(result)
        return steps.result

    def _send(self, call: Call[T]) -> T:
        with self._translated():
            response = self._http.send(self._request(self._http, call), stream=True)
            try:
                if call.into is None or response.is_error:
                    return call.decode(_checked(response, response.read()))
                with download(call.into) as file:
                    for chunk in response.iter_raw():
                        file.write(chunk)
                return call.decode(b"")
            finally:
                response.close()

    def events(self, run_id: str, *, after: int = 0) -> Iterator[Envelope]:
        """Yield a run's events as they happen, until the run ends; a broken connection is taken up again.

        A run that was stopped and resumed has earlier endings among its events: the service says which is the last.

        Args:
            run_id: the run.
            after: sequence number after which to begin; 0: from the first event.
        """
        reader = _reader(run_id, after)
        while not reader.ended:
            error = None
            try:
                with self._translated():
                    response = self._http.send(self._request(self._http, reader.request()), stream=True)
                    try:
                        if response.is_error:
                            _checked(response, response.read())
                        for line in response.iter_lines():
                            if envelope := reader.feed(line):
                                yield envelope
                    finally:
                        response.close()
            except YunmoError as failure:
                error = failure
            if not reader.ended:
                time.sleep(reader.wait(error))


class AsyncClient(_Methods):
    """The asynchronous client (asyncio). Use it as ``async with``. Arguments: see ``_Methods.__init__``."""

    def __init__(
        self, url: str, key: str | None = None, *, uds: str | Path | None = None, timeout: float = DEFAULT_TIMEOUT
    ) -> None:
        super().__init__(url, key, uds=uds, timeout=timeout)
        transport = httpx.AsyncHTTPTransport(uds=str(uds)) if uds else None
        self._http = httpx.AsyncClient(transport=transport, **self._options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def perform(self, flow: Flow[T]) -> T:
        """Carry out a call or flow of ``requests`` and return its result."""
        steps = Steps(flow)
        while steps.action is not None:
            try:
                result = (
                    await asyncio.to_thread(steps.action.do)
                    if isinstance(steps.action, Work)
                    else await self._send(steps.action)
                )
            except Exception as error:
                steps.fail(error)
            else:
                steps.answer(result)
        return steps.result

    async def _send(self, call: Call[T]) -> T:
        with self._translated():
            response = await self._http.send(self._request(self._http, call), stream=True)
            try:
                if call.into is None or response.is_error:
                    return call.decode(_checked(response, await response.aread()))
                with download(call.into) as file:
                    async for chunk in response.aiter_raw():
                        await asyncio.to_thread(file.write, chunk)
                return call.decode(b"")
            finally:
                await response.aclose()

    async def events(self, run_id: str, *, after: int = 0) -> AsyncIterator[Envelope]:
        """Yield a run's events as they happen; as `Client.events`."""
        reader = _reader(run_id, after)
        while not reader.ended:
            error = None
            try:
                with self._translated():
                    response = await self._http.send(self._request(self._http, reader.request()), stream=True)
                    try:
                        if response.is_error:
                            _checked(response, await response.aread())
                        async for line in response.aiter_lines():
                            if envelope := reader.feed(line):
                                yield envelope
                    finally:
                        await response.aclose()
            except YunmoError as failure:
                error = failure
            if not reader.ended:
                await asyncio.sleep(reader.wait(error))


def _reader(run_id: str, after: int) -> EventReader:
    return EventReader(f"/api/v1/runs/{quote(run_id, safe='')}/events", after=after)


def _checked(response: httpx.Response, body: bytes) -> bytes:
    """Return the body of a good answer; raise what the problem document of another says."""
    if response.is_success:
        return body
    try:
        document = msgspec.json.decode(body, type=dict[str, object])
    except msgspec.MsgspecError:
        document = {}
    if "code" in document:
        raise from_problem(document)
    detail = f"the answer is HTTP {response.status_code}, and not from a Yunmo service"
    raise Unavailable(detail, where=str(response.url.copy_with(query=None)), remedy="Check the URL")
