"""The proof can fail: servers that mix up, lose or damage answers are found out."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable

import numpy as np
import onnxruntime as ort
import pytest
from benchmarks.proof import echo
from benchmarks.proof.callers import Caller, Orders, Target
from benchmarks.proof.tally import Tally

Answer = Callable[[int, dict[str, list[list[float]]]], bytes | None]


def reply(rows: list[list[float]], status: int = 200) -> bytes:
    body = json.dumps({"outputs": rows}).encode()
    return f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def right(asked: dict[str, list[list[float]]]) -> list[list[float]]:
    return [[2 * number + 1 for number in row] for row in asked["inputs"]]


async def against(answer: Answer, *, answers: int = 60, aborts: float = 0.0) -> Tally:
    """Let four callers loose on a server that answers its n-th request with what ``answer`` says; None: hangs up."""
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().split(b"content-length:")[1].split()[0])
                asked = json.loads(await reader.readexactly(size))
                count += 1
                said = answer(count, asked)
                if said is None:
                    break
                writer.write(said)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    orders = Orders(0, (Target("127.0.0.1", port, "plain", "/"),), 4, answers, aborts, 0.2, 0)
    left = [answers]
    callers = [Caller(orders, number, left) for number in range(4)]
    async with server, asyncio.timeout(60):
        await asyncio.gather(*(caller.run() for caller in callers))
        server.close()
    total = Tally()
    for caller in callers:
        total.add(caller.tally)
    return total


def test_a_faithful_server_proves_it_in_spite_of_aborts() -> None:
    tally = asyncio.run(against(lambda _, asked: reply(right(asked)), answers=200, aborts=0.3))
    assert tally.proven
    assert tally.abandoned.total() > 20


def test_an_answer_to_another_is_foreign() -> None:
    kept: list[list[list[float]]] = []

    def swap(number: int, asked: dict[str, list[list[float]]]) -> bytes:
        kept.append(right(asked))
        return reply(kept[-2] if number % 20 == 0 else kept[-1])

    tally = asyncio.run(against(swap))
    assert tally.foreign > 0
    assert not tally.proven


def test_one_number_that_is_off_is_foreign() -> None:
    def damage(number: int, asked: dict[str, list[list[float]]]) -> bytes:
        rows = right(asked)
        if number == 7:
            rows[-1][-1] += 1
        return reply(rows)

    tally = asyncio.run(against(damage))
    assert tally.foreign == 1


def test_a_connection_that_ends_without_an_answer_is_a_loss() -> None:
    tally = asyncio.run(against(lambda number, asked: None if number == 9 else reply(right(asked))))
    assert tally.lost >= 1
    assert not tally.proven


def test_an_error_is_a_refusal_and_no_loss() -> None:
    tally = asyncio.run(against(lambda number, asked: reply(right(asked), 503 if number == 9 else 200)))
    assert tally.refused == {"503": 1}
    assert tally.proven


def test_a_service_that_answers_nothing_proves_nothing() -> None:
    assert not Tally().proven


@pytest.fixture(scope="module")
def rows() -> echo.Rows:
    return np.random.default_rng(0).integers(0, echo.LIMIT, (5, echo.WIDTH)).astype(np.float32)


@pytest.mark.parametrize("slow", [False, True])
def test_the_echo_is_exact(rows: echo.Rows, slow: bool) -> None:
    session = ort.InferenceSession(echo.model(slow=slow, offset=3).SerializeToString())
    (found,) = session.run(None, {echo.INPUT: rows})
    assert np.array_equal(found, echo.expected(rows, 3))


def test_the_trap_springs_for_its_rows_only(rows: echo.Rows) -> None:
    session = ort.InferenceSession(echo.model(fails_from=echo.LIMIT - 1).SerializeToString())
    rows = rows.copy()
    rows[:, 0] = 5
    assert np.array_equal(session.run(None, {echo.INPUT: rows})[0], echo.expected(rows))
    rows[2, 0] = echo.LIMIT - 1
    with pytest.raises(Exception, match="out of"):
        session.run(None, {echo.INPUT: rows})
