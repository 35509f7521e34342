// Runs a piece of a model without keeping what lies in between; the backward pass runs it again (activation checkpointing).
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "border.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

namespace joust {
namespace {

using Call = bool (*)(void* context, Tensor* x, Tensor* more, Tensor** out);

// A piece in Rust: two tensors in, the second may be missing, and two out. The last reference gives the context back.
struct Piece : torch::CustomClassHolder {
  Piece(void* context, Call call, void (*release)(void*)) : context(context), call(call), release(release) {}
  ~Piece() override { release(context); }

  variable_list run(const Tensor& x, const Tensor& more) const {
    Tensor* out[2] = {nullptr, nullptr};
    const bool done = call(context, new Tensor(x), more.defined() ? new Tensor(more) : nullptr, out);
    TORCH_CHECK(done, "the piece that is computed again panicked");
    variable_list result{*out[0], *out[1]};
    delete out[0];
    delete out[1];
    return result;
  }

  void* context;
  Call call;
  void (*release)(void*);
};

using PiecePtr = c10::intrusive_ptr<Piece>;

struct RecomputeFunction : Function<RecomputeFunction> {
  // `anchor` has a gradient where the inputs have none, so that what the piece itself reads gets its own.
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const std::optional<Tensor>& more, const PiecePtr& piece,
                               const Tensor& /* anchor */) {
    ctx->save_for_backward({x, more ? *more : Tensor()});
    ctx->saved_data["piece"] = c10::IValue::make_capsule(piece);
    return piece->run(x, more ? *more : Tensor());
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto piece = c10::static_intrusive_pointer_cast<Piece>(ctx->saved_data["piece"].toCapsule());
    variable_list in = ctx->get_saved_variables();
    for (Tensor& tensor : in) {
      if (tensor.defined()) tensor = tensor.detach().requires_grad_(ctx->needs_input_grad(0) || tensor.requires_grad());
    }
    variable_list roots, sums;
    {
      at::AutoGradMode records(true);
      variable_list out = piece->run(in[0], in[1]);
      for (size_t i = 0; i < out.size(); i++) {
        if (!grads[i].defined() || !out[i].requires_grad()) continue;
        roots.push_back(out[i]);
        sums.push_back(grads[i]);
      }
      torch::autograd::backward(roots, sums);
    }
    auto grad = [](const Tensor& tensor) { return tensor.defined() ? tensor.grad() : Tensor(); };
    return {grad(in[0]), grad(in[1]), Tensor(), Tensor()};
  }
};

}  // namespace
}  // namespace joust

extern "C" {

// `more` may be null. The context is given back by `release`, once, here or with the graph.
char* joust_recompute(const Tensor* x, const Tensor* more, void* context, joust::Call call, void (*release)(void*), Tensor** out) {
  return joust::guarded([&] {
    auto piece = c10::make_intrusive<joust::Piece>(context, call, release);
    const Tensor second = more ? *more : Tensor();
    auto result = at::GradMode::is_enabled()
                      ? joust::RecomputeFunction::apply(*x, more ? std::optional<Tensor>(second) : std::nullopt, piece,
                                                        at::zeros({0}).requires_grad_(true))
                      : piece->run(*x, second);
    for (int i = 0; i < 2; i++) out[i] = new Tensor(result[i]);
  });
}

}  // extern "C"
