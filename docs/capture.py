r"""Make a picture of a terminal: ANSI text on standard input becomes SVG on standard output.

How ``docs/demo.svg`` was made, from a checkout after ``make demo ONCE=1``::

    tmux -f /dev/null new-session -d -s demo -x 112 -y 60 'tmux set -g history-limit 5000; make demo ONCE=1; sleep 60'
    sleep 50; tmux capture-pane -t demo -e -p -S - | sed -n '/Report on/,$p' \
        | .venv/bin/python docs/capture.py > docs/demo.svg

Keys are blotted out, and no font is fetched from anywhere.
"""

from __future__ import annotations

import io
import re
import sys

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

WIDTH = 112


def main() -> None:
    """Convert."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    text = re.sub(r"ym_[\w-]{52}", "ym_...", sys.stdin.read())
    for line in text.strip("\n").splitlines():
        console.print(Text.from_ansi(line), no_wrap=True, crop=True)
    picture = console.export_svg(title="make demo", theme=MONOKAI)
    sys.stdout.write(re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL))


if __name__ == "__main__":
    main()
