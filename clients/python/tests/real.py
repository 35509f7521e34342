"""A real cluster: `joust up` in a folder of the test's, with the programs of the folder $JOUST_BIN."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = ("joust", "joust-coordinator", "joust-rollout", "joust-judge", "joust-learner")
END = 150.0
"""How long `joust up` and `joust down` may take, in seconds; they give up by themselves before."""


def missing() -> str:
    """Says what keeps a cluster from being started here; empty for nothing."""
    named = os.environ.get("JOUST_BIN")
    if not named:
        return "JOUST_BIN names no folder of programs; `make build`, then `make test-client`"
    absent = [name for name in PROGRAMS if not os.access(Path(named) / name, os.X_OK)]
    if absent:
        return f"{', '.join(absent)} not in JOUST_BIN={named}; `make build` builds the programs"
    return "" if shutil.which("redis-server") else "redis-server is not installed (apt-get install redis-server)"


class RealCluster:
    """A cluster of one worker a role, whose runs may read the repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def up(self) -> None:
        """Starts it, and returns when all its parts are there."""
        said = self.joust("up", "--folder", str(self.folder), "--root", str(ROOT), "--detach")
        assert said.startswith("cluster ready: "), said

    def down(self) -> None:
        """Ends it, and sees that none of its processes is left."""
        pids = self.processes()
        self.joust("down", "--folder", str(self.folder))
        left = {name: pid for name, pid in pids.items() if str(self.folder) in _command_line(pid)}
        assert left == {}, f"processes that `joust down` left: {left}"

    def processes(self) -> dict[str, int]:
        """Returns the processes by name, that of `joust up` included; none of a cluster that did not come up."""
        if not (self.folder / "cluster.json").is_file():
            return {}
        pids: dict[str, int] = json.loads((self.folder / "processes.json").read_text())
        return {**pids, "up": json.loads((self.folder / "cluster.json").read_text())["pid"]}

    def joust(self, *arguments: str) -> str:
        """Runs the joust command to its end and returns what it prints."""
        command = [str(Path(os.environ["JOUST_BIN"]) / "joust"), *arguments]
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True, timeout=END, check=False)
        assert done.returncode == 0, f"joust {' '.join(arguments)} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def environment(self) -> dict[str, str]:
        """Returns the environment in which programs find this cluster and the client."""
        return {**os.environ, "JOUST_CLUSTER": str(self.folder), "PYTHONPATH": str(ROOT / "clients" / "python" / "src")}


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except FileNotFoundError:
        return ""
