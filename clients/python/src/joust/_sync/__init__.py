# Made by generate.py from aio/__init__.py; do not edit.
"""The client for asyncio: the same names as in `joust`, with calls that are awaited."""

from joust._sync._cluster import Cluster, Runs, connect
from joust._sync._run import Run
from joust._sync._workers import Judges, Learner, Rollouts

__all__ = ["Cluster", "Judges", "Learner", "Rollouts", "Run", "Runs", "connect"]
