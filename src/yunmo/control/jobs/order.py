"""The frame of a process that carries out one order: it reads the order from stdin and answers on stdout, both JSON."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from yunmo.core.errors import YunmoError, problem

OrderT = TypeVar("OrderT", bound=msgspec.Struct)


def carry_out(kind: type[OrderT], work: Callable[[OrderT], dict[str, Any]]) -> None:
    """Carry out the order on stdin; write ``{"result": …}`` or, for an error of ours, ``{"problem": …}`` to stdout.

    Whatever else this process or its libraries print goes to stderr.

    Args:
        kind: of the order.
        work: returns the result.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=kind)
    try:
        answer = {"result": work(order)}
    except YunmoError as error:
        answer = {"problem": problem(error)}
    answers.write(msgspec.json.encode(answer))
    answers.flush()
