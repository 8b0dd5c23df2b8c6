"""The proof that no answer is lost and none goes to another caller.

``python benchmarks/proof/run.py [--answers N]`` starts Yunmo with two echo models and lets callers loose on it, in
every protocol. ``--peer NAME`` does the same with MLServer or LitServe, ``--against URL`` with a server that runs
already. Exit status 0 only if of N answers none was foreign and none was lost. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.proof import echo, peers
from benchmarks.proof.callers import Orders, Target, run_all
from benchmarks.proof.forms import FORMS, FormName
from benchmarks.proof.tally import Tally
from benchmarks.service import Yunmo
from benchmarks.serving.places import Failed

ENDPOINTS = ("echo", "echo-slow")
"""A model that is quicker than a switch of threads, and one that lets requests queue and form batches."""
YUNMO_FORMS: tuple[FormName, ...] = ("native", "oip-json", "oip-binary", "grpc")


def prove(
    targets: Sequence[Target],
    *,
    answers: int,
    processes: int = 2,
    callers: int = 48,
    aborts: float = 0.1,
    pipelining: float = 0.1,
    seed: int = 0,
) -> Tally:
    """Let callers loose and return what became of every request.

    Args:
        targets: the callers of a process take them in turn.
        answers: right answers wanted, in all.
        processes: of callers.
        callers: in each process; each has one connection.
        aborts: share of requests whose caller goes away.
        pipelining: share of requests that go out several at once.
        seed: of all chance but that of timing.
    """
    share = -(-answers // processes)
    orders = [Orders(process, tuple(targets), callers, share, aborts, pipelining, seed) for process in range(processes)]
    return run_all(orders)


@contextlib.contextmanager
def yunmo(forms: Sequence[FormName], *, workers: int = 2) -> Iterator[list[Target]]:
    """Start Yunmo with the echo models and return where to ask."""
    with tempfile.TemporaryDirectory(prefix="yunmo-proof-") as folder, Yunmo(workers=workers) as service:
        for name in ENDPOINTS:
            file = echo.write(Path(folder, f"{name}.onnx"), echo.model(slow=name == "echo-slow"))
            service.deploy(service.import_onnx(file, name), name)
        headers = {"authorization": f"Bearer {service.key}"}
        yield [
            Target("127.0.0.1", service.grpc_port if form == "grpc" else service.port, form, name, headers)
            for name in ENDPOINTS
            for form in forms
        ]


def against(
    url: str, grpc_address: str | None, forms: Sequence[FormName], endpoint: str, key: str | None, rows: int
) -> list[Target]:
    """Return where to ask a server that runs already.

    Raises:
        Failed: an address is missing or none.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise Failed(f"{url!r} is no http URL")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    targets = []
    for form in forms:
        host, port = parts.hostname, parts.port or 80
        if form == "grpc":
            if grpc_address is None:
                raise Failed("gRPC needs --grpc HOST:PORT")
            host, _, text = grpc_address.rpartition(":")
            port = int(text)
        targets.append(Target(host, port, form, endpoint, headers, rows))
    return targets


@contextlib.contextmanager
def _place(arguments: argparse.Namespace, forms: list[FormName]) -> Iterator[list[Target]]:
    if arguments.against:
        key, rows = arguments.key, arguments.rows
        yield against(arguments.against, arguments.grpc, forms or ["oip-json"], arguments.endpoint, key, rows)
    elif arguments.peer:
        with peers.start(arguments.peer) as targets:
            yield [target for target in targets if not forms or target.form in forms]
    else:
        with yunmo(forms or YUNMO_FORMS) as targets:
            yield targets


def main() -> int:
    """Prove it, or show that it is not so."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=100_000, help="[100000]")
    parser.add_argument("--protocol", action="append", choices=FORMS, help="several times for several [all it has]")
    parser.add_argument("--peer", choices=peers.NAMES, help="start this server instead of Yunmo")
    parser.add_argument("--against", metavar="URL", help="a server that has an echo model and runs already")
    parser.add_argument("--grpc", metavar="HOST:PORT", help="where it answers gRPC")
    parser.add_argument("--endpoint", default="echo", help="with --against: the model's name (plain: path) [echo]")
    parser.add_argument("--key", help="with --against: its API key")
    parser.add_argument("--rows", type=int, default=5, help="with --against: most rows in a request [5]")
    parser.add_argument("--write-model", type=Path, metavar="FILE", help="only write the echo model, as ONNX")
    parser.add_argument("--processes", type=int, default=2, help="of callers [2]")
    parser.add_argument("--callers", type=int, default=48, help="in each process [48]")
    parser.add_argument("--aborts", type=float, default=0.1, help="share of requests whose caller goes away [0.1]")
    parser.add_argument("--pipelining", type=float, default=0.1, help="share that goes out several at once [0.1]")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.write_model:
        echo.write(arguments.write_model, echo.model())
        return 0
    try:
        with _place(arguments, arguments.protocol or []) as targets:
            asked = ", ".join(f"{target.form} {target.endpoint}" for target in targets)
            print(f"{arguments.answers:,} answers from {asked} ...", flush=True)
            tally = prove(
                targets,
                answers=arguments.answers,
                processes=arguments.processes,
                callers=arguments.callers,
                aborts=arguments.aborts,
                pipelining=arguments.pipelining,
                seed=arguments.seed,
            )
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(tally)
    print("PROVEN: 0 foreign, 0 lost" if tally.proven else "NOT SO")
    return 0 if tally.proven else 1


if __name__ == "__main__":
    sys.exit(main())
