"""The messages and stubs of the wire, a namespace for each package: `proto.common.PreferenceExample`, `proto.learner.LearnerServiceStub`.

A stub takes the channel of either client (`cluster.channel(address)`). Meanings and units of all fields stand in the proto files of
the repository.
"""

from joust._gen.common import v1 as common
from joust._gen.coordinator import v1 as coordinator
from joust._gen.judge import v1 as judge
from joust._gen.learner import v1 as learner
from joust._gen.rollout import v1 as rollout

__all__ = ["common", "coordinator", "judge", "learner", "rollout"]
