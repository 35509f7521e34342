"""Run files as a user names them."""

from __future__ import annotations

import os
from pathlib import Path


def read_run(run: str | os.PathLike[str]) -> tuple[str, str]:
    """Returns the text of a run file and the folder that it lies in; of a text the text and no folder.

    Raises:
        OSError: if the file cannot be read.
    """
    if isinstance(run, str) and "\n" in run:
        return run, ""
    path = Path(run).resolve()
    return path.read_text(encoding="utf-8"), str(path.parent)
