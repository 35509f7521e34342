from joust._gen.coordinator.v1 import records_pb2 as _records_pb2
from joust._gen.coordinator.v1 import runs_pb2 as _runs_pb2
from joust._gen.coordinator.v1 import steering_pb2 as _steering_pb2
from joust._gen.coordinator.v1 import workers_pb2 as _workers_pb2
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor
