"""The tour of ``make demo``: real handwritten digits in, a signed model answering over HTTP out."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from yunmo.cli import main, samples
from yunmo.cli.output import say, stdout
from yunmo.cli.place import connect, home
from yunmo.core.errors import ModelFailed, Unavailable, YunmoError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.text import Text

    from yunmo.client.client import Client

NAME = "digits"
BUDGET = "15s"
RIGHT = 0.9
"""Share of the digits shown that must be answered rightly."""
PORT = 8080


def demo(*, once: bool) -> int:
    """Give the tour.

    Args:
        once: end after it; else keep serving until Ctrl-C.

    Returns:
        The exit status: 0 if the model's answers were right.

    Raises:
        YunmoError: a step failed.
    """
    os.environ.pop("YUNMO_URL", None)
    began = time.monotonic()
    folder = home() / "samples"
    _chapter(1, f"Real handwritten digits, out of scikit-learn; {samples.HELD_OUT} are held out")
    path, images, labels = samples.write_digits(folder)
    one_of_each = [labels.tolist().index(label) for label in sorted(set(labels.tolist()))]
    images, labels = images[one_of_each], labels[one_of_each]
    stdout().print(_drawn(images, [f"a {label}" for label in labels]))

    train = ["train", _short(path), "--target", "label", "--name", NAME, "--budget", BUDGET]
    _chapter(2, _command(train))
    _verb(train)

    with connect() as client:
        version = client.model(NAME)
    reference = f"{NAME}:{version.version}"
    verify = ["models", "verify", reference]
    _chapter(3, _command(verify))
    _verb(verify)

    port = _free_port()
    _chapter(4, _command(["up", *([] if port == PORT else ["--port", str(port)])]))
    with _service(port) as (url, key, process):
        say(f"The service answers at [bold]{url}[/bold] [dim](documentation: {url}/docs)[/dim]")
        deploy = ["deploy", reference]
        _chapter(5, _command(deploy))
        _verb(deploy)
        _chapter(6, "Held-out digits over HTTP: what it says, and what it is")
        with connect() as client:
            right = _ask(client, images, labels)
        _what_next(url, key, folder, images[0])
        say(f"\n[dim]The tour took {time.monotonic() - began:.0f} seconds.[/dim]")
        if right < RIGHT:
            raise ModelFailed(f"only {right:.0%} of the answers were right", remedy="Please report this")
        if not once:
            say("[bold]Serving until Ctrl-C …[/bold]")
            process.wait()
    return 0


def _chapter(number: int, text: str) -> None:
    say(f"\n[bold cyan]{number}[/bold cyan] [bold]{text}[/bold]")


def _command(arguments: Sequence[str]) -> str:
    return "$ yunmo " + " ".join(arguments)


def _verb(arguments: Sequence[str]) -> None:
    """Run a verb as a person would; its failure is the tour's."""
    status = main.main(arguments)
    if status != 0:
        raise SystemExit(status)


# --- the service ---


def _free_port() -> int:
    """Return the usual port, or a free one if it is taken."""
    for port in (PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise Unavailable("no port is free on 127.0.0.1")


@contextmanager
def _service(port: int) -> Iterator[tuple[str, str | None, subprocess.Popen[bytes]]]:
    """Run ``yunmo up`` until the block ends; its log goes to a file of the workspace."""
    log = home() / "demo.log"
    command = [sys.executable, "-m", "yunmo.cli", "up", "--host", "127.0.0.1", "--port", str(port), "--json"]
    with log.open("wb") as file:
        # In a session of its own: Ctrl-C comes to us alone, and we end it once.
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, start_new_session=True)
        try:
            yield *_announced(process, log), process
        finally:
            _stop(process)


def _announced(process: subprocess.Popen[bytes], log: Path) -> tuple[str, str | None]:
    """Wait for the line with which the service says where it answers, and at its first start by which key."""
    output: IO[bytes] | None = process.stdout
    line = output.readline() if output else b""
    if not line:
        process.wait()
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise Unavailable("the service does not start", where=str(log), remedy=last[0] if last else None)
    said = msgspec.json.decode(line)
    return said["url"], said["key"]


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# --- asking ---


def _ask(client: Client, images: NDArray[np.uint8], labels: NDArray[Any]) -> float:
    """Send pictures, draw them above their answers, and return the share that was right."""
    captions, right = [], 0
    for image, label in zip(images, labels, strict=True):
        began = time.perf_counter()
        answer = client.predict_raw(NAME, _png(image), "image/png")[0]["label"]
        seconds = time.perf_counter() - began
        good = answer["value"] == str(label)
        right += good
        mark = "[green]✓[/green]" if good else "[red]✗[/red]"
        figures = f"[dim]{answer['probability']:.0%}\n{seconds * 1000:.1f} ms[/dim]"
        captions.append(f"says [bold]{answer['value']}[/bold]\nis   [bold]{label}[/bold] {mark}\n{figures}")
    stdout().print(_drawn(images, captions))
    return right / len(images)


def _png(image: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def _drawn(images: NDArray[np.uint8], captions: Sequence[str]) -> Any:
    """Return pictures side by side, each above its caption."""
    from rich.columns import Columns
    from rich.console import Group
    from rich.text import Text

    draw = _half_blocks if stdout().is_terminal else _shades
    shown = [Group(draw(image), Text.from_markup(caption)) for image, caption in zip(images, captions, strict=True)]
    return Columns(shown, padding=(0, 2))


def _half_blocks(image: NDArray[np.uint8]) -> Text:
    """Draw a gray picture in colors: two pixels, one above the other, in a character."""
    from rich.text import Text

    drawn = Text()
    for row, (upper, lower) in enumerate(zip(image[::2], image[1::2], strict=True)):
        drawn.append("\n" if row else "")
        for top, bottom in zip(upper.tolist(), lower.tolist(), strict=True):
            drawn.append("▀", style=f"rgb({top},{top},{top}) on rgb({bottom},{bottom},{bottom})")
    return drawn


def _shades(image: NDArray[np.uint8]) -> Text:
    """Draw a gray picture without colors: a character a pixel."""
    from rich.text import Text

    return Text("\n".join("".join(" ░▒▓█"[value // 52] for value in row) for row in image.tolist()))


def _what_next(url: str, key: str | None, folder: Path, image: NDArray[np.uint8]) -> None:
    picture = folder / "digit.png"
    picture.write_bytes(_png(image))
    program = Path(sys.executable).with_name("yunmo")
    yunmo = _short(program) if program.exists() and shutil.which("yunmo") != str(program) else "yunmo"
    say("\n[bold]Ask it yourself, from another terminal:[/bold]")
    if os.environ.get("YUNMO_HOME"):
        say(f"  export YUNMO_HOME={home()}")
    if key is not None:
        say(f"  export YUNMO_API_KEY={key}     [dim]# your first key, shown this once[/dim]")
    else:
        say(f'  export YUNMO_API_KEY="$(cat {_short(home() / "workspace.key")})"')
    say(
        f"  curl --data-binary @{_short(picture)} -H 'content-type: image/png' "
        f'-H "authorization: Bearer $YUNMO_API_KEY" {url}/api/v1/endpoints/{NAME}/predict'
    )
    say("\n[bold]And then:[/bold]")
    say(f"  {yunmo} predict {NAME} {_short(picture)}")
    say(f"  {yunmo} runs ls")
    say(f"  {yunmo} models show {NAME}")
    say(f"  {yunmo} train FOLDER_OF_PICTURES     [dim]# one folder for each class, or a zip of it[/dim]")
    say(f"  {yunmo} train FILE.csv --target COLUMN")


def _short(path: Path) -> str:
    """Return a path relative to here if it is below."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def run(arguments: Sequence[str]) -> int:
    """Give the tour, with errors as the command line shows them."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # so that the service is ended with us
    try:
        return demo(once="--once" in arguments)
    except YunmoError as error:
        sys.stderr.write(f"error: {error}\n")
        return main.FAILED
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
