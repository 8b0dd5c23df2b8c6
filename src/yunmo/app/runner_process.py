"""The runner: the only process that launches durable runs."""

from __future__ import annotations

import signal
import threading

from yunmo.app.process import child_arguments, exit_within
from yunmo.control.context import open_context
from yunmo.control.jobs.runner import Runner
from yunmo.store.workspace import Workspace


def main() -> None:
    """Run queued runs until told to stop; what is unfinished goes on at the next start."""
    arguments = child_arguments()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with open_context(Workspace(arguments.home), arguments.settings) as context:
        runner = Runner(context)
        runner.start()
        stop.wait()
        # Once for running steps to end by themselves, once for those that are ended.
        exit_within(2 * arguments.settings.drain_timeout)
        runner.stop()


if __name__ == "__main__":
    main()
