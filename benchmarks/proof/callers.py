"""Callers: each asks with markers of its own, in every form, now and then goes away, and checks what comes back."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from benchmarks.proof import echo, wire
from benchmarks.proof.forms import Answered, Form, FormName, form
from benchmarks.proof.tally import Tally
from benchmarks.serving import grpc_body

PATIENCE = 60.0
"""Seconds after which a request without an answer is lost."""
MOST_LOST = 200
"""A caller that has lost so many requests gives up: the case is clear."""
MOST_ROWS = 5
MOST_PIPELINED = 4
_GRPC_ERRORS_OF_OURS = ("CANCELLED", "DEADLINE_EXCEEDED")

ABORTS = ("mid-body", "after body", "mid-answer", "half-closed")
"""When a caller goes away."""


@dataclass(frozen=True)
class Target:
    """Where to ask."""

    host: str
    port: int
    form: FormName
    endpoint: str
    headers: dict[str, str] = field(default_factory=dict)
    rows: int = MOST_ROWS


@dataclass(frozen=True)
class Orders:
    """What one process of callers is to do."""

    process: int
    targets: Sequence[Target]
    callers: int
    answers: int
    aborts: float
    pipelining: float
    seed: int


class Caller:
    """One caller.

    Args:
        orders: of its process.
        number: among the callers of its process.
        left: answers that the process still wants; shared by its callers.
    """

    def __init__(self, orders: Orders, number: int, left: list[int]) -> None:
        self._orders = orders
        self._number = number
        self._left = left
        self._dice = random.Random(f"{orders.seed} {orders.process} {number}")  # noqa: S311  # may be guessed
        self._asked = 0
        self.tally = Tally()

    @property
    def _wants(self) -> bool:
        return self._left[0] > 0 and self.tally.lost < MOST_LOST

    async def run(self) -> None:
        """Ask until the process has its answers."""
        targets = list(self._orders.targets)
        target = targets[self._number % len(targets)]
        if target.form == "grpc":
            await self._run_grpc(target)
        else:
            await self._run_http(target, form(target.form, target.endpoint))

    def _rows(self, target: Target) -> echo.Rows:
        """Return rows that no other request has."""
        count = self._dice.randint(1, target.rows)
        self._asked += 1
        marks = (self._orders.process, self._number, self._asked % echo.LIMIT)
        rows = [[*marks, row, *(self._dice.randrange(echo.LIMIT) for _ in range(4))] for row in range(count)]
        return np.asarray(rows, np.float32)

    def _name(self) -> str:
        return f"{self._orders.process}-{self._number}-{self._asked}"

    async def _run_http(self, target: Target, form_: Form) -> None:
        connection: wire.Connection | None = None
        while self._wants:
            try:
                if connection is None:
                    connection = await wire.Connection.open(target.host, target.port)
            except OSError:
                self.tally.lost += 1
                self.tally.note("the connection was refused")
                await asyncio.sleep(0.1)
                continue
            if self._dice.random() < self._orders.aborts:
                await self._abandon(connection, target, form_)
                connection = None
                continue
            count = self._dice.randint(2, MOST_PIPELINED) if self._dice.random() < self._orders.pipelining else 1
            if not await self._ask(connection, target, form_, count):
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _encoded(self, target: Target, form_: Form) -> tuple[echo.Rows, str, bytes]:
        rows = self._rows(target)
        name = self._name()
        path, headers, body = form_.encode(rows, name)
        return rows, name, wire.request(path, {**target.headers, **headers}, body)

    async def _ask(self, connection: wire.Connection, target: Target, form_: Form, count: int) -> bool:
        """Send requests at once, read their answers in order; say whether the connection can be used again."""
        asked = [self._encoded(target, form_) for _ in range(count)]
        data = b"".join(each for *_, each in asked)
        done = 0
        try:
            async with asyncio.timeout(PATIENCE):
                if self._dice.random() < 0.1:  # in two parts, with a pause
                    cut = self._dice.randrange(1, len(data))
                    await connection.send(data[:cut])
                    await asyncio.sleep(self._dice.random() * 0.01)
                    data = data[cut:]
                await connection.send(data)
                for rows, name, _ in asked:
                    reply = await connection.receive()
                    done += 1
                    self._judge(form_, reply, rows, name)
                    if reply.last:
                        self.tally.withdrawn += count - done
                        return False
        except (wire.Gone, TimeoutError) as error:
            self.tally.lost += count - done
            self.tally.note(f"{target.form}: {'no answer' if isinstance(error, TimeoutError) else 'connection ended'}")
            return False
        return True

    def _judge(self, form_: Form, reply: wire.Reply, rows: echo.Rows, name: str) -> None:
        if reply.status != 200:
            self.tally.refused[str(reply.status)] += 1
            self.tally.note(f"{reply.status}: {reply.body[:200].decode(errors='replace')}")
            return
        try:
            answered = form_.decode(reply.headers, reply.body)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            self.tally.foreign += 1
            self.tally.note(f"no such answer ({error!r}): {reply.body[:200]!r}")
            return
        self._check(answered, rows, name)

    def _check(self, answered: Answered, rows: echo.Rows, name: str) -> None:
        wanted = echo.expected(rows)
        own = answered.rows.shape == wanted.shape and bool((answered.rows == wanted).all())
        if own and answered.request_id in (None, "", name):
            self.tally.answers += 1
            self.tally.rows += len(rows)
            self._left[0] -= 1
        else:
            self.tally.foreign += 1
            got = f"{answered.rows[:1].tolist()} id {answered.request_id}"
            self.tally.note(f"{name} asked {rows[:1].tolist()}, was answered {got}")

    async def _abandon(self, connection: wire.Connection, target: Target, form_: Form) -> None:
        """Ask and go away; an answer that comes all the same must be the caller's own."""
        when = self._dice.choice(ABORTS)
        rows, name, data = self._encoded(target, form_)
        self.tally.abandoned[when] += 1
        try:
            async with asyncio.timeout(PATIENCE):
                if when == "mid-body":
                    head = data.index(b"\r\n\r\n") + 4
                    await connection.send(data[: self._dice.randint(head, len(data) - 1)])
                    await asyncio.sleep(self._dice.random() * 0.005)
                else:
                    await connection.send(data)
                if when == "mid-answer":
                    await connection.receive_some()
                if when == "half-closed":  # a server may answer, refuse or hang up (RFC 9112, 9.6, leaves it open)
                    connection.half_close()
                    reply = await connection.receive()
                    if reply.status == 200:
                        self._judge(form_, reply, rows, name)
        except (wire.Gone, TimeoutError):
            pass
        connection.close(hard=self._dice.random() < 0.5)

    async def _run_grpc(self, target: Target) -> None:
        metadata = tuple(target.headers.items())
        async with grpc.aio.insecure_channel(f"{target.host}:{target.port}") as channel:
            ask: Any = channel.unary_unary(grpc_body.PATH)
            while self._wants:
                rows = self._rows(target)
                name = self._name()
                message = grpc_body.infer_request(target.endpoint, echo.INPUT, rows, name)
                leaves = self._dice.random() < self._orders.aborts
                call = ask(message, metadata=metadata, timeout=PATIENCE)
                if leaves:
                    await asyncio.sleep(self._dice.random() * 0.01)
                    self.tally.abandoned["gRPC call"] += 1
                    if call.cancel():
                        continue
                await self._judge_grpc(call, rows, name)

    async def _judge_grpc(self, call: Any, rows: echo.Rows, name: str) -> None:
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            if code in ("UNAVAILABLE", *_GRPC_ERRORS_OF_OURS) and "Retry" not in (error.details() or ""):
                # UNAVAILABLE is a refusal only where the server said so itself, with trailers of its own.
                if code == "UNAVAILABLE" and error.trailing_metadata():
                    self.tally.refused[code] += 1
                    return
                self.tally.lost += 1
                await asyncio.sleep(0.1)
            else:
                self.tally.refused[code] += 1
            self.tally.note(f"gRPC {code}: {error.details()}")
            return
        try:
            request_id, outputs = grpc_body.read_response(answer)
            answered = Answered(outputs[0].reshape(-1, echo.WIDTH), request_id)
        except (ValueError, IndexError) as error:
            self.tally.foreign += 1
            self.tally.note(f"no such answer ({error!r})")
            return
        self._check(answered, rows, name)


async def _run(orders: Orders) -> Tally:
    left = [orders.answers]
    callers = [Caller(orders, number, left) for number in range(orders.callers)]
    began = time.monotonic()
    await asyncio.gather(*(caller.run() for caller in callers))
    tally = Tally(seconds=time.monotonic() - began)
    for caller in callers:
        tally.add(caller.tally)
    return tally


def carry_out(orders: Orders) -> Tally:
    """Run the callers of one process to the end."""
    return asyncio.run(_run(orders))


def run_all(orders: Sequence[Orders]) -> Tally:
    """Run processes of callers at once and add up what they found."""
    total = Tally()
    with multiprocessing.get_context("spawn").Pool(len(orders)) as pool:
        for tally in pool.imap_unordered(carry_out, orders):
            total.add(tally)
    return total
