"""The client for asyncio: the same names as in `joust`, with calls that are awaited."""

from joust.aio._cluster import Cluster, Runs, connect
from joust.aio._run import Run
from joust.aio._workers import Judges, Learner, Rollouts

__all__ = ["Cluster", "Judges", "Learner", "Rollouts", "Run", "Runs", "connect"]
