"""What became of every request."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

MOST_NOTES = 12
_KIND = 24
"""Notes that begin alike are of one kind; one example of each is enough."""


@dataclass
class Tally:
    """Counts; several are added up."""

    answers: int = 0
    """Own, right answers."""
    rows: int = 0
    foreign: int = 0
    """Answers with anything but what was asked for: another's, damaged, or under another's id."""
    lost: int = 0
    """Requests that were neither answered nor refused."""
    refused: Counter[str] = field(default_factory=Counter)
    """Errors by status."""
    abandoned: Counter[str] = field(default_factory=Counter)
    """Requests whose caller went away on purpose, by when."""
    withdrawn: int = 0
    """Pipelined requests after an answer with which the server closed, as RFC 9112 (9.3.2) allows."""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take in another's counts."""
        self.answers += other.answers
        self.rows += other.rows
        self.foreign += other.foreign
        self.lost += other.lost
        self.refused += other.refused
        self.abandoned += other.abandoned
        self.withdrawn += other.withdrawn
        self.seconds = max(self.seconds, other.seconds)
        for note in other.notes:
            self.note(note)

    def note(self, text: str) -> None:
        """Keep an example of what went wrong."""
        if len(self.notes) < MOST_NOTES and all(text[:_KIND] != note[:_KIND] for note in self.notes):
            self.notes.append(text)

    @property
    def proven(self) -> bool:
        """Nothing lost, nothing foreign, and something answered."""
        return self.answers > 0 and not self.foreign and not self.lost

    def __str__(self) -> str:
        def counted(counter: Counter[str]) -> str:
            parts = ", ".join(f"{name} {count:,}" for name, count in sorted(counter.items()))
            return f"{counter.total():,}" + (f" ({parts})" if parts else "")

        lines = [
            f"answers    {self.answers:,} ({self.rows:,} rows) in {self.seconds:.0f} s",
            f"foreign    {self.foreign:,}",
            f"lost       {self.lost:,}",
            f"refused    {counted(self.refused)}",
            f"abandoned  {counted(self.abandoned)}",
        ]
        if self.withdrawn:
            lines.append(f"withdrawn  {self.withdrawn:,} (pipelined after an answer with Connection: close)")
        return "\n".join([*lines, *(f"  e.g. {note}" for note in self.notes)])
