from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from yunmo.core.errors import (
    BodyTooLarge,
    Forbidden,
    InvalidInput,
    SlowBody,
    TooManyRequests,
    Unavailable,
    YunmoError,
)
from yunmo.serving import http
from yunmo.serving.http import Attended, ClientGone, Request, declared_length, problem_response


class Bare(Request):
    """A request without a connection, whose client leaves when it is told to."""

    def __init__(self, **headers: str) -> None:
        super().__init__("POST", "/a", "", "req_1")
        self.headers = headers
        self.gone = False

    def header(self, name: str) -> str | None:
        return self.headers.get(name)

    def header_values(self, name: str) -> list[str]:
        return [self.headers[name]]

    async def receive(self) -> tuple[bytes, bool]:
        return b"", False

    async def body(self, *, limit: int, timeout: float = 0) -> bytes:
        del limit, timeout
        return b""

    def on_left(self, call: Callable[[], None] | None) -> None:
        if call is not None and self.gone:
            call()


def request(*, gone: bool = False) -> Bare:
    made = Bare()
    if gone:
        made.gone = True
    return made


@pytest.mark.parametrize("text", ["-1", "+1", "1.0", "0x1", "", " 1", "1_0", "٣", "9" * 30])
def test_a_length_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        declared_length(Bare(**{"content-length": text}))


def test_a_length_is_what_the_client_says() -> None:
    assert declared_length(Bare(**{"content-length": "017"})) == 17
    assert declared_length(Bare()) is None


@pytest.mark.parametrize(
    ("error", "name", "value"),
    [
        (TooManyRequests("full"), "retry-after", "1"),
        (Unavailable("away"), "retry-after", "2"),
        (BodyTooLarge("big"), "connection", "close"),
        (SlowBody("slow"), "connection", "close"),
        (Forbidden("no"), "connection", None),
        (Forbidden("no"), "retry-after", None),
    ],
)
def test_problems_say_what_the_client_needs(error: YunmoError, name: str, value: str | None) -> None:
    reply = problem_response(error, "req_1")
    assert dict(reply.headers).get(name) == value
    assert reply.content_type == "application/problem+json"
    document = json.loads(reply.body)
    assert document["status"] == reply.status == error.status
    assert (document["code"], document["instance"]) == (error.code, "req_1")


def attended(work: Callable[[], Any]) -> Any:
    """Do something for a client that has gone."""

    async def main() -> Any:
        async with asyncio.timeout(20):
            with Attended(request(gone=True)):
                return await work()

    return asyncio.run(main())


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for the client begins with the block."""
    monkeypatch.setattr(http, "WATCH_AFTER", 0.0)


@pytest.mark.usefixtures("at_once")
def test_work_for_a_client_that_left_is_cancelled() -> None:
    ended = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    with pytest.raises(ClientGone):
        attended(forever)
    assert ended


@pytest.mark.usefixtures("at_once")
def test_work_for_a_client_that_stays_is_let_be() -> None:
    async def main() -> None:
        async def work() -> int:
            for _ in range(10):
                await asyncio.sleep(0)
            return 7

        with Attended(request()):
            assert await work() == 7
        with pytest.raises(Forbidden), Attended(request()):
            raise Forbidden("no")
        async with asyncio.timeout(20):
            while len(asyncio.all_tasks()) > 1:  # nobody goes on looking
                await asyncio.sleep(0)

    asyncio.run(main())


@pytest.mark.usefixtures("at_once")
def test_an_error_of_the_work_is_not_hidden_by_a_client_that_left() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise Forbidden("no") from None

    with pytest.raises(Forbidden):
        attended(stubborn)


@pytest.mark.usefixtures("at_once")
def test_a_cancellation_from_outside_stays_one() -> None:
    async def main() -> None:
        entered = asyncio.Event()

        async def work() -> None:
            with Attended(request()):
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.ensure_future(work())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


@pytest.mark.usefixtures("at_once")
def test_a_task_can_go_on_after_its_client_left() -> None:
    """What the client's leaving cancelled was the block, not the task."""

    async def main() -> None:
        with pytest.raises(ClientGone), Attended(request(gone=True)):
            await asyncio.Event().wait()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        async with asyncio.timeout(20):
            await asyncio.to_thread(threading.Event)

    asyncio.run(main())
