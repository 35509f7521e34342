// The divergence of two decoders' next-token distributions without whole logits: a few rows at a time, computed again for the gradient.
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "border.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

namespace joust {
namespace {

// Rows of a slice of `logits` elements.
int64_t slice_rows(int64_t logits, int64_t vocab) { return std::max<int64_t>(1, logits / std::max<int64_t>(1, vocab)); }

Tensor logits_of(const Tensor& rows, const Tensor& weight, int64_t first, int64_t count) {
  return at::linear(rows.narrow(0, first, count), weight).to(sum_kind(rows));
}

// Σ_v q(v)·(log q(v) − log p(v)) of each row, p from `rows`, q from `held`.
Tensor divergence(const Tensor& rows, const Tensor& weight, const Tensor& held, const Tensor& held_weight, int64_t step) {
  const int64_t n = rows.size(0);
  Tensor out = at::empty({n}, rows.options().dtype(sum_kind(rows)));
  for (int64_t first = 0; first < n; first += step) {
    const int64_t count = std::min(step, n - first);
    Tensor log_p = at::log_softmax(logits_of(rows, weight, first, count), 1);
    Tensor log_q = at::log_softmax(logits_of(held, held_weight, first, count).to(log_p.scalar_type()), 1);
    out.narrow(0, first, count).copy_(log_q.exp().mul_(log_q.sub(log_p)).sum(1));
  }
  return out;
}

struct DivergenceFunction : Function<DivergenceFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& rows, const Tensor& weight, const Tensor& held,
                        const Tensor& held_weight, int64_t step) {
    ctx->saved_data["step"] = step;
    ctx->save_for_backward({rows, weight, held, held_weight});
    return divergence(rows, weight, held, held_weight, step);
  }

  // The gradient by the logits of p is p − q.
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const Tensor &rows = saved[0], &weight = saved[1], &held = saved[2], &held_weight = saved[3];
    const int64_t n = rows.size(0), step = ctx->saved_data["step"].toInt();
    const auto wide = sum_kind(rows);
    Tensor grad = grads[0].to(wide).unsqueeze(1);
    Tensor d_rows = at::empty(rows.sizes(), rows.options());
    Tensor d_weight = ctx->needs_input_grad(1) ? at::zeros(weight.sizes(), weight.options().dtype(wide)) : Tensor();
    for (int64_t first = 0; first < n; first += step) {
      const int64_t count = std::min(step, n - first);
      Tensor p = at::softmax(logits_of(rows, weight, first, count), 1);
      Tensor q = at::softmax(logits_of(held, held_weight, first, count).to(wide), 1);
      Tensor d_logits = p.sub_(q).mul_(grad.narrow(0, first, count)).to(rows.scalar_type());
      d_rows.narrow(0, first, count).copy_(at::mm(d_logits, weight));
      // Slices are sums of their own, gathered in float32.
      if (d_weight.defined()) d_weight.add_(at::mm(d_logits.t(), rows.narrow(0, first, count)));
    }
    if (d_weight.defined()) d_weight = d_weight.to(weight.scalar_type());
    return {d_rows, d_weight, Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace
}  // namespace joust

extern "C" {

// `logits`: elements of one slice of logits, of which p and q need one each.
char* joust_divergence(const Tensor* rows, const Tensor* weight, const Tensor* held, const Tensor* held_weight, int64_t logits,
                       Tensor** out) {
  return joust::guarded([&] {
    TORCH_CHECK(rows->size(0) == held->size(0), "expected as many held rows as rows, ", rows->size(0), ", got ", held->size(0));
    TORCH_CHECK(weight->size(0) == held_weight->size(0), "expected one vocabulary, got ", weight->size(0), " and ",
                held_weight->size(0), " tokens");
    const int64_t step = joust::slice_rows(logits, weight->size(0));
    Tensor in = rows->contiguous(), fixed = held->contiguous();
    const bool records = at::GradMode::is_enabled() && (rows->requires_grad() || weight->requires_grad());
    *out = new Tensor(records ? joust::DivergenceFunction::apply(in, *weight, fixed, *held_weight, step)
                              : joust::divergence(in, *weight, fixed, *held_weight, step));
  });
}

}  // extern "C"
