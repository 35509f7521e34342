// Collectives between ranks: c10d's backends behind a C interface, Gloo for tensors on the CPU, NCCL (`gpu.cpp`) for those on GPUs. Every
// call only begins the work; `joust_work_wait` ends it.
#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "border.h"
#ifdef JOUST_CUDA
#include "gpu.h"
#endif

namespace {

// Gloo has no abort: breaking its connections makes what waits on them fail, on this rank and on its peers.
class Gloo : public c10d::ProcessGroupGloo {
 public:
  using c10d::ProcessGroupGloo::ProcessGroupGloo;
  void abort() override {
    for (auto& context : contexts_) context->closeConnections();
  }
};

using WorkPtr = c10::intrusive_ptr<c10d::Work>;

struct Group {
  c10::intrusive_ptr<c10d::Backend> cpu;
  c10::intrusive_ptr<c10d::Backend> gpu;  // null where there is none

  c10d::Backend& of(const at::Tensor& tensor) const {
    if (!tensor.is_cuda()) return *cpu;
    TORCH_CHECK(gpu, "the group was joined without GPUs, a tensor lies on one");
    return *gpu;
  }
};

Group& group_of(void* group) { return *static_cast<Group*>(group); }

at::Tensor& tensor_of(void* tensor) { return *static_cast<at::Tensor*>(tensor); }

c10d::ReduceOp reduction(int32_t which) {
  switch (which) {
    case 0: return c10d::ReduceOp::SUM;
    case 1: return c10d::ReduceOp::MAX;
    case 2: return c10d::ReduceOp::MIN;
    default: TORCH_CHECK(false, "no reduction has the number ", which);
  }
}

void give(WorkPtr work, void** out) { *out = new WorkPtr(std::move(work)); }

}  // namespace

extern "C" {

// Joins ranks 0 to size - 1 that meet under `prefix` in the store; returns when every rank is connected to every other.
char* joust_group_open(void* store, const char* prefix, const char* host, int32_t rank, int32_t size, int64_t timeout_ms,
                       void** out) {
  return joust::guarded([&] {
    const auto timeout = std::chrono::milliseconds(timeout_ms);
    auto options = c10d::ProcessGroupGloo::Options::create(timeout);
    options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(host));
    auto own = c10::make_intrusive<c10d::PrefixStore>(prefix, *static_cast<c10::intrusive_ptr<c10d::Store>*>(store));
    own->setTimeout(timeout);
    auto group = std::make_unique<Group>();
    group->cpu = c10::make_intrusive<Gloo>(own, rank, size, options);
#ifdef JOUST_CUDA
    group->gpu = joust::open_gpu_group(c10::make_intrusive<c10d::PrefixStore>("gpu", own), rank, size, timeout);
#endif
    *out = group.release();
  });
}

void joust_group_free(void* group) { delete static_cast<Group*>(group); }

char* joust_group_abort(void* group) {
  return joust::guarded([&] {
    const Group& both = group_of(group);
    both.cpu->abort();
    if (both.gpu) both.gpu->abort();
  });
}

char* joust_all_reduce(void* group, void* tensor, int32_t operation, void** work) {
  return joust::guarded([&] {
    std::vector<at::Tensor> tensors{tensor_of(tensor)};
    c10d::AllreduceOptions options;
    options.reduceOp = reduction(operation);
    give(group_of(group).of(tensors[0]).allreduce(tensors, options), work);
  });
}

char* joust_reduce_scatter(void* group, void* output, void* input, void** work) {
  return joust::guarded([&] {
    at::Tensor& from = tensor_of(input);
    give(group_of(group).of(from)._reduce_scatter_base(tensor_of(output), from), work);
  });
}

char* joust_all_gather(void* group, void* output, void* input, void** work) {
  return joust::guarded([&] {
    at::Tensor& from = tensor_of(input);
    give(group_of(group).of(from)._allgather_base(tensor_of(output), from), work);
  });
}

char* joust_broadcast(void* group, void* tensor, int32_t root, void** work) {
  return joust::guarded([&] {
    std::vector<at::Tensor> tensors{tensor_of(tensor)};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    give(group_of(group).of(tensors[0]).broadcast(tensors, options), work);
  });
}

char* joust_barrier(void* group, void** work) {
  return joust::guarded([&] { give(group_of(group).cpu->barrier(), work); });
}

char* joust_work_wait(void* work) {
  return joust::guarded([&] { (*static_cast<WorkPtr*>(work))->wait(); });
}

// Work that cannot be asked is done: waiting for it returns its error.
bool joust_work_done(void* work) {
  try {
    return (*static_cast<WorkPtr*>(work))->isCompleted();
  } catch (...) {
    return true;
  }
}

void joust_work_free(void* work) { delete static_cast<WorkPtr*>(work); }

}  // extern "C"
