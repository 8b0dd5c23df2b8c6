"""Making a signed bundle of an ONNX file: ``python -m yunmo.control.jobs.import_onnx``, a process of its own.

The file comes from anywhere and is parsed and run here, so this process limits itself before it looks at it: memory,
seconds of processor time, size of files, no core dumps. Whoever starts it also limits the time. It reads an order from
stdin (`Order`) and writes ``{"result": {}}`` or ``{"problem": …}`` to stdout.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import Any

import msgspec

from yunmo.core.errors import BundleError, YunmoError, problem
from yunmo.core.schema import Spec


class Order(Spec, frozen=True):
    """What is to be made."""

    file: str
    folder: str
    """Where the bundle goes; it must not be there."""
    name: str
    fields: dict[str, Any]
    private_key: str
    """Path of the key that signs it."""
    public_key: str
    """PEM."""
    memory: int
    """Bytes of address space."""
    seconds: int
    """Processor time."""
    max_pixels: int


def main() -> None:
    """Carry out the order on stdin."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    limit(order)
    answer: dict[str, Any]
    try:
        import_onnx(order)
        answer = {"result": {}}
    except YunmoError as error:
        answer = {"problem": problem(error)}
    except MemoryError:
        answer = {"problem": problem(too_much())}
    answers.write(msgspec.json.encode(answer))
    answers.flush()


def limit(order: Order) -> None:
    """Give this process its limits."""
    # Python, ONNX Runtime and the signing library reserve about 1 GB of addresses before anything is loaded.
    for what, wanted in (
        (resource.RLIMIT_AS, order.memory),
        (resource.RLIMIT_CPU, order.seconds),
        (resource.RLIMIT_FSIZE, order.memory),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(what, (value, value))


def too_much() -> BundleError:
    """Return the error for a file that takes more than the limits."""
    return BundleError(
        "loading and trying it takes more memory or time than an import may",
        remedy="Import a smaller model, or describe its free axes with their sizes in a fields file",
    )


def import_onnx(order: Order) -> None:
    """Make the bundle, sign it, and open it as serving will.

    Raises:
        BundleError: the file is refused.
        InvalidInput: the description does not fit.
    """
    from yunmo.bundle.sign import sign
    from yunmo.inference.predictor import Predictor
    from yunmo.packaging.imported.description import description_from
    from yunmo.packaging.imported.pack import pack_imported

    folder = Path(order.folder)
    pack_imported(Path(order.file), folder, name=order.name, description=description_from(order.fields))
    sign(folder, Path(order.private_key))
    Predictor.open(folder, public_key_pem=order.public_key, max_pixels=order.max_pixels)


if __name__ == "__main__":
    main()
