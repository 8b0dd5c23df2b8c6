import subprocess
import sys
import threading
from pathlib import Path

from yunmo.core.events import RunCancelled, RunNotice, RunQueued
from yunmo.store.events import EventSink

WRITE = """
import sys
from pathlib import Path
from yunmo.core.events import RunNotice
from yunmo.store.events import EventSink
sink = EventSink(Path(sys.argv[1]))
for index in range(25):
    sink.emit("default", sys.argv[2], RunNotice(message=str(index)))
"""


def test_events_of_many_processes_and_threads_have_one_order(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    sink = EventSink(path)
    processes = [subprocess.Popen([sys.executable, "-c", WRITE, str(path), f"run_{n}"]) for n in range(3)]

    def write(subject: str) -> None:
        for index in range(25):
            sink.emit("default", subject, RunNotice(message=str(index)))

    threads = [threading.Thread(target=write, args=(f"thread_{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait() for process in processes] == [0, 0, 0]
    everything = sink.read()
    assert [event.sequence for event in everything] == list(range(1, 151))
    for subject in ("run_0", "run_2", "thread_1"):
        own = sink.read(subject=subject)
        assert [event.event for event in own] == [RunNotice(message=str(index)) for index in range(25)]
    sink.close()


def test_reading_goes_on_after_a_number_and_survives_reopening(tmp_path: Path) -> None:
    sink = EventSink(tmp_path / "events.sqlite")
    first = sink.emit("default", "run_1", RunQueued(name="a"))
    sink.emit("default", "run_2", RunQueued(name="b"))
    last = sink.emit("default", "run_1", RunCancelled())
    sink.close()
    sink = EventSink(tmp_path / "events.sqlite")
    assert [event.sequence for event in sink.read(after=first, subject="run_1")] == [last]
    assert [event.sequence for event in sink.read(limit=2)] == [first, first + 1]
    newest = sink.last("run_1")
    assert newest is not None
    assert isinstance(newest.event, RunCancelled)
    earlier = sink.last("run_1", "run.queued")
    assert earlier is not None
    assert earlier.sequence == first
    assert sink.last("run_2", "run.cancelled") is None
    assert sink.last("run_3") is None
    sink.close()
