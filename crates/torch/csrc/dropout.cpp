// Dropout whose mask is a function of its key: nothing is kept for the backward pass, which draws the mask again.
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "border.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// As Rust writes it.
struct JoustMask {
  uint32_t key[2], place[3], below;
  float scale;
};

namespace joust {
namespace {

Tensor masked(const Tensor& x, const JoustMask& mask) {
  Tensor in = x.contiguous(), out = at::empty_like(in);
  by_kind(in, [&](const auto& kernels, auto type) {
    using T = typename decltype(type)::type;
    Dropout<T> job{read<T>(in),   write<T>(out),  in.numel(), {mask.key[0], mask.key[1]}, {mask.place[0], mask.place[1], mask.place[2]},
                   mask.below, mask.scale};
    at::parallel_for(0, (in.numel() + MASK_GROUP - 1) / MASK_GROUP, 256, [&](int64_t a, int64_t b) { kernels.dropout(job, a, b); });
  });
  return out;
}

struct DropoutFunction : Function<DropoutFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const JoustMask& mask) {
    ctx->saved_data["mask"] = std::string(reinterpret_cast<const char*>(&mask), sizeof mask);
    return masked(x, mask);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    JoustMask mask;
    std::memcpy(&mask, ctx->saved_data["mask"].toStringRef().data(), sizeof mask);
    return {masked(grads[0], mask), Tensor()};
  }
};

}  // namespace
}  // namespace joust

extern "C" {

char* joust_dropout(const Tensor* x, const JoustMask* mask, Tensor** out) {
  return joust::guarded([&] {
    const bool records = at::GradMode::is_enabled() && x->requires_grad();
    *out = new Tensor(records ? joust::DropoutFunction::apply(*x, *mask) : joust::masked(*x, *mask));
  });
}

}  // extern "C"
