"""The ``yunmo`` command: its verbs, and how every error becomes one line and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from yunmo import __version__
from yunmo.cli import advise, data, doctor, endpoints, jobs, keys, models, predict, runs, service, train
from yunmo.core.errors import InternalError, InvalidInput, YunmoError
from yunmo.core.files import is_full, storage_full

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
"""Exit statuses: something went wrong; the command line itself was wrong; Ctrl-C."""

app = typer.Typer(
    name="yunmo",
    help="Bring data, get a signed model that answers over REST.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(service.up)
app.command("advise")(advise.advise)
app.command("train")(train.train)
app.add_typer(runs.app, name="runs")
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")
app.command("evaluate")(models.evaluate)
app.command("deploy")(endpoints.deploy)
app.command("rollback")(endpoints.rollback)
app.add_typer(endpoints.app, name="endpoints")
app.command("predict")(predict.predict)
app.add_typer(jobs.app, name="jobs")
app.add_typer(keys.app, name="keys")
app.command("doctor")(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"yunmo {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Bring data, get a signed model that answers over REST."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; by default those of the process.

    Returns:
        The exit status.
    """
    try:
        status = app(
            args=list(sys.argv[1:] if arguments is None else arguments),
            # Named, so that completion is that of the command however this is started.
            prog_name="yunmo",
            standalone_mode=False,
        )
        sys.stdout.flush()
    except typer.TyperException as error:
        return _misused(error)
    except YunmoError as error:
        return _failed(error)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone (`yunmo runs ls | head`); Python would complain about it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        where = str(error.filename) if error.filename else None
        if is_full(error):
            return _failed(storage_full(where))
        return _failed(InvalidInput(error.strerror or str(error), where=where))
    except Exception as error:
        if _debugging():
            raise
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        return _failed(
            InternalError(f"a defect of Yunmo ({what})", remedy="Set YUNMO_LOG_LEVEL=debug to see where it happened")
        )
    return status if isinstance(status, int) else 0


def _debugging() -> bool:
    return os.environ.get("YUNMO_LOG_LEVEL", "").lower() == "debug"


def _failed(error: YunmoError) -> int:
    if _debugging():
        import traceback

        traceback.print_exception(error)
    _complain(str(error))
    return FAILED


def _misused(error: typer.TyperException) -> int:
    text = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(text, err=True)
        return MISUSED
    _complain(text)
    return MISUSED if error.exit_code == MISUSED else FAILED


def _complain(text: str) -> None:
    typer.echo("error: " + " ".join(text.split()), err=True)
