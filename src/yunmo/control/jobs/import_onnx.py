"""Making a signed bundle of an ONNX file: ``python -m yunmo.control.jobs.import_onnx``, a process of its own.

The file comes from anywhere and is parsed and run here, so this process limits itself before it looks at it: memory,
seconds of processor time, size of files, no core dumps. Whoever starts it also limits the time. It reads an `Order`.
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

from yunmo.control.jobs.order import carry_out
from yunmo.core.errors import BundleError
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
    carry_out(Order, work)


def work(order: Order) -> dict[str, Any]:
    """Make the bundle within the limits; there is no result but that.

    Raises:
        BundleError: the file is refused, or takes too much memory.
        InvalidInput: the description does not fit.
    """
    limit(order)
    try:
        import_onnx(order)
    except MemoryError:
        raise too_much() from None
    return {}


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
