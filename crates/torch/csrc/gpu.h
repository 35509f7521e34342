#pragma once
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace joust {

// Makes the group of ranks that moves tensors on GPUs; null on a machine without one. Connects at the first collective.
c10::intrusive_ptr<c10d::Backend> open_gpu_group(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                                 std::chrono::milliseconds timeout);

}  // namespace joust
