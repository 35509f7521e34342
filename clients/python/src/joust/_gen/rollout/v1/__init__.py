# Made by generate.py from proto/; do not edit.
from joust._gen.rollout.v1.rollout_pb2 import DrainRequest as DrainRequest
from joust._gen.rollout.v1.rollout_pb2 import DrainResponse as DrainResponse
from joust._gen.rollout.v1.rollout_pb2 import GenerateRequest as GenerateRequest
from joust._gen.rollout.v1.rollout_pb2 import GenerateResponse as GenerateResponse
from joust._gen.rollout.v1.rollout_pb2 import GetStatusRequest as GetStatusRequest
from joust._gen.rollout.v1.rollout_pb2 import GetStatusResponse as GetStatusResponse
from joust._gen.rollout.v1.rollout_pb2 import LoadModelsRequest as LoadModelsRequest
from joust._gen.rollout.v1.rollout_pb2 import LoadModelsResponse as LoadModelsResponse
from joust._gen.rollout.v1.rollout_pb2 import RunLoad as RunLoad
from joust._gen.rollout.v1.rollout_pb2 import Sampling as Sampling
from joust._gen.rollout.v1.rollout_pb2_grpc import RolloutServiceServicer as RolloutServiceServicer
from joust._gen.rollout.v1.rollout_pb2_grpc import RolloutServiceStub as RolloutServiceStub
from joust._gen.rollout.v1.rollout_pb2_grpc import add_RolloutServiceServicer_to_server as add_RolloutServiceServicer_to_server
