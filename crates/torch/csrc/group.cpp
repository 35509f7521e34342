// Collectives between ranks: c10d's Gloo backend behind a C interface. Every call only begins the work; `joust_work_wait` ends it.
#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "border.h"

namespace {

// Gloo has no abort: breaking its connections makes what waits on them fail, on this rank and on its peers.
class Group : public c10d::ProcessGroupGloo {
 public:
  using c10d::ProcessGroupGloo::ProcessGroupGloo;
  void abort() override {
    for (auto& context : contexts_) context->closeConnections();
  }
};

using GroupPtr = c10::intrusive_ptr<Group>;
using WorkPtr = c10::intrusive_ptr<c10d::Work>;

GroupPtr& group_of(void* group) { return *static_cast<GroupPtr*>(group); }

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
    *out = new GroupPtr(c10::make_intrusive<Group>(own, rank, size, options));
  });
}

void joust_group_free(void* group) { delete static_cast<GroupPtr*>(group); }

char* joust_group_abort(void* group) {
  return joust::guarded([&] { group_of(group)->abort(); });
}

char* joust_all_reduce(void* group, void* tensor, int32_t operation, void** work) {
  return joust::guarded([&] {
    std::vector<at::Tensor> tensors{tensor_of(tensor)};
    c10d::AllreduceOptions options;
    options.reduceOp = reduction(operation);
    give(group_of(group)->allreduce(tensors, options), work);
  });
}

char* joust_reduce_scatter(void* group, void* output, void* input, void** work) {
  return joust::guarded(
      [&] { give(group_of(group)->_reduce_scatter_base(tensor_of(output), tensor_of(input)), work); });
}

char* joust_all_gather(void* group, void* output, void* input, void** work) {
  return joust::guarded([&] { give(group_of(group)->_allgather_base(tensor_of(output), tensor_of(input)), work); });
}

char* joust_broadcast(void* group, void* tensor, int32_t root, void** work) {
  return joust::guarded([&] {
    std::vector<at::Tensor> tensors{tensor_of(tensor)};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    give(group_of(group)->broadcast(tensors, options), work);
  });
}

char* joust_barrier(void* group, void** work) {
  return joust::guarded([&] { give(group_of(group)->barrier(), work); });
}

char* joust_work_wait(void* work) {
  return joust::guarded([&] { (*static_cast<WorkPtr*>(work))->wait(); });
}

bool joust_work_done(void* work) { return (*static_cast<WorkPtr*>(work))->isCompleted(); }

void joust_work_free(void* work) { delete static_cast<WorkPtr*>(work); }

}  // extern "C"
