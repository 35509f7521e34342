"""Client of Joust, online preference alignment of language models.

`connect` finds the cluster, `cluster.runs` starts and finds runs, a run is watched and steered, or worked with by hand. `joust.aio` is
the same for asyncio; `joust.proto` has the messages and stubs of the wire.
"""

from joust import aio, events, proto
from joust._sync import Cluster, Judges, Learner, Rollouts, Run, Runs, connect
from joust.errors import ConfigError, Error, RunFailed, Violation
from joust.preferences import pair
from joust.records import Answers, Completion, Feedback, Judgement, Put, RunInfo, RunState, Step

__all__ = [
    "Answers",
    "Cluster",
    "Completion",
    "ConfigError",
    "Error",
    "Feedback",
    "Judgement",
    "Judges",
    "Learner",
    "Put",
    "Rollouts",
    "Run",
    "RunFailed",
    "RunInfo",
    "RunState",
    "Runs",
    "Step",
    "Violation",
    "aio",
    "connect",
    "events",
    "pair",
    "proto",
]
