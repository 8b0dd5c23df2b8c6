"""The examples of docs/open-inference-protocol.md, and where they run."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tests.contract.harness import Workers
from tests.fixtures.bundles import png

PAGE = Path(__file__).parents[2] / "docs" / "open-inference-protocol.md"


def examples(language: str) -> list[str]:
    """Return the page's blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def surroundings(workers: Workers, folder: Path) -> dict[str, str]:
    """Put the files there that the examples read, and return their environment."""
    (folder / "cat.png").write_bytes(png(120))
    ours = {"YUNMO_URL": workers.url, "YUNMO_API_KEY": workers.key, "YUNMO_GRPC_PORT": str(workers.grpc.port)}
    return os.environ | ours
