// Collectives of tensors on GPUs: c10d's NCCL backend. Only built with the cargo feature `cuda`.
#define USE_C10D_NCCL
#include "gpu.h"

#include <c10/cuda/CUDAFunctions.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

namespace {

// c10d's watchdog ends the process when a collective fails, and its `wait` only orders streams. Here `wait` returns when the result is
// there, or throws what failed, as Gloo's does.
class Group : public c10d::ProcessGroupNCCL {
 public:
  Group(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size, c10::intrusive_ptr<Options> options)
      : c10d::ProcessGroupNCCL(store, rank, size, std::move(options)) {
    blockingWait_ = true;
    asyncErrorHandling_ = c10d::NoHandling;
  }
};

}  // namespace

namespace joust {

c10::intrusive_ptr<c10d::Backend> open_gpu_group(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                                 std::chrono::milliseconds timeout) {
  if (c10::cuda::device_count() == 0) return {};
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  return c10::make_intrusive<Group>(store, rank, size, std::move(options));
}

}  // namespace joust
