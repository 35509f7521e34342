// Norm, gate and rotary embedding as autograd functions over the loops of kernels.h.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "border.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

namespace joust {

const Table& table() {
#if defined(__x86_64__)
  static const Table& chosen = __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
                                       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd")
                                   ? table_avx512()
                               : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? table_avx2()
                                                                                                 : table_base();
  return chosen;
#else
  return table_base();
#endif
}

namespace {

bool records(std::initializer_list<const Tensor*> inputs) {
  if (!at::GradMode::is_enabled()) return false;
  for (const Tensor* input : inputs) {
    if (input->defined() && input->requires_grad()) return true;
  }
  return false;
}

struct Normed {
  Tensor sum, out, rstd;
};

Normed norm_forward(const Tensor& x, const Tensor& add, const Tensor& weight, double eps, bool keep) {
  const int64_t width = x.size(-1), rows = x.numel() / width;
  Tensor in = x.contiguous(), more = add.defined() ? add.contiguous() : Tensor(), scale = weight.contiguous();
  Normed result{more.defined() ? at::empty_like(in) : in, at::empty_like(in), Tensor()};
  if (keep) result.rstd = at::empty({rows}, in.options().dtype(sum_kind(in)));
  by_kind(in, [&](const auto& kernels, auto type) {
    using T = typename decltype(type)::type;
    Norm<T> job{read<T>(in), read<T>(more), read<T>(scale), more.defined() ? write<T>(result.sum) : nullptr,
                write<T>(result.out), write<typename Accumulator<T>::type>(result.rstd), width, eps};
    at::parallel_for(0, rows, grain(width), [&](int64_t a, int64_t b) { kernels.norm(job, a, b); });
  });
  return result;
}

// Sums over rows are cut into this many parts whatever the number of threads, so that their bits do not depend on it.
constexpr int64_t PARTS = 16;

struct NormFunction : Function<NormFunction> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const std::optional<Tensor>& add,
                               const Tensor& weight, double eps) {
    Normed result = norm_forward(x, add ? *add : Tensor(), weight, eps, true);
    ctx->save_for_backward({result.sum, weight, result.rstd});
    ctx->saved_data["added"] = add.has_value();
    ctx->set_materialize_grads(false);
    if (add) return {result.out, result.sum};
    return {result.out};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const Tensor &sum = saved[0], weight = saved[1].contiguous(), &rstd = saved[2];
    const bool added = ctx->saved_data["added"].toBool();
    if (!grads[0].defined()) return {grads[1], added ? grads[1] : Tensor(), Tensor(), Tensor()};
    Tensor d_out = grads[0].contiguous(), d_sum = added && grads[1].defined() ? grads[1].contiguous() : Tensor();
    const int64_t width = sum.size(-1), rows = sum.numel() / width, part = (rows + PARTS - 1) / PARTS;
    Tensor dx = at::empty_like(sum), d_weight = at::zeros({PARTS, width}, rstd.options());
    by_kind(sum, [&](const auto& kernels, auto type) {
      using T = typename decltype(type)::type;
      using A = typename Accumulator<T>::type;
      at::parallel_for(0, PARTS, 1, [&](int64_t a, int64_t b) {
        for (int64_t i = a; i < b; i++) {
          NormGrad<T> job{read<T>(d_out), read<T>(d_sum), read<T>(sum), read<T>(weight), read<A>(rstd), write<T>(dx),
                          write<A>(d_weight) + i * width, width};
          kernels.norm_grad(job, std::min(rows, i * part), std::min(rows, (i + 1) * part));
        }
      });
    });
    return {dx, added ? dx : Tensor(), d_weight.sum(0).to(weight.scalar_type()), Tensor()};
  }
};

Tensor gate_forward(const Tensor& gate_up) {
  const int64_t inner = gate_up.size(-1) / 2, rows = gate_up.numel() / (2 * inner);
  auto shape = gate_up.sizes().vec();
  shape.back() = inner;
  Tensor in = gate_up.contiguous(), out = at::empty(shape, in.options());
  by_kind(in, [&](const auto& kernels, auto type) {
    using T = typename decltype(type)::type;
    Gate<T> job{read<T>(in), nullptr, write<T>(out), nullptr, inner};
    at::parallel_for(0, rows, grain(inner), [&](int64_t a, int64_t b) { kernels.gate(job, a, b); });
  });
  return out;
}

struct GateFunction : Function<GateFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& gate_up) {
    ctx->save_for_backward({gate_up});
    return gate_forward(gate_up);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    Tensor in = ctx->get_saved_variables()[0].contiguous(), d_out = grads[0].contiguous(), d_in = at::empty_like(in);
    const int64_t inner = in.size(-1) / 2, rows = in.numel() / (2 * inner);
    by_kind(in, [&](const auto& kernels, auto type) {
      using T = typename decltype(type)::type;
      Gate<T> job{read<T>(in), read<T>(d_out), nullptr, write<T>(d_in), inner};
      at::parallel_for(0, rows, grain(inner), [&](int64_t a, int64_t b) { kernels.gate_grad(job, a, b); });
    });
    return {d_in};
  }
};

struct RopeShape {
  int64_t batch, tokens, heads, kv_heads, dim, repeat, stride;
};

RopeShape rope_shape(const Tensor& qkv, const Tensor& cos, int64_t heads, int64_t kv_heads, bool repeat) {
  const int64_t dim = cos.size(-1), tokens = qkv.size(1), batch = qkv.size(0);
  TORCH_CHECK(qkv.size(2) == (heads + 2 * kv_heads) * dim, "expected qkv of width ", (heads + 2 * kv_heads) * dim,
              ", got ", qkv.size(2));
  const bool shared = cos.numel() == tokens * dim;
  TORCH_CHECK(shared || cos.numel() == batch * tokens * dim, "expected tables for ", tokens, " tokens, got ", cos.sizes());
  return {batch, tokens, heads, kv_heads, dim, repeat ? heads / kv_heads : 1, shared ? 0 : tokens * dim};
}

// [B, heads, T, D] whose memory is [B, T, heads, D], so that attention's output needs no copy.
Tensor heads_first(const RopeShape& s, int64_t heads, const Tensor& like) {
  return at::empty_strided({s.batch, heads, s.tokens, s.dim}, {s.tokens * heads * s.dim, s.dim, heads * s.dim, 1},
                           like.options());
}

variable_list rope_forward(const Tensor& qkv, const Tensor& cos, const Tensor& sin, const RopeShape& s) {
  Tensor in = qkv.contiguous(), c = cos.contiguous(), n = sin.contiguous();
  Tensor query = heads_first(s, s.heads, in), key = heads_first(s, s.kv_heads * s.repeat, in);
  Tensor value = heads_first(s, s.kv_heads * s.repeat, in);
  by_kind(in, [&](const auto& kernels, auto type) {
    using T = typename decltype(type)::type;
    Rope<T> job{read<T>(in),   read<T>(c), read<T>(n), write<T>(query), write<T>(key), write<T>(value), nullptr, nullptr,
                nullptr,       nullptr,    s.heads,    s.kv_heads,      s.dim,         s.repeat,        s.tokens, s.stride};
    at::parallel_for(0, s.batch * s.tokens, grain(in.size(2)), [&](int64_t a, int64_t b) { kernels.rope(job, a, b); });
  });
  return {query, key, value};
}

struct RopeFunction : Function<RopeFunction> {
  static variable_list forward(AutogradContext* ctx, const Tensor& qkv, const Tensor& cos, const Tensor& sin,
                               int64_t heads, int64_t kv_heads, bool repeat) {
    ctx->save_for_backward({cos, sin});
    const RopeShape s = rope_shape(qkv, cos, heads, kv_heads, repeat);
    ctx->saved_data["shape"] = std::vector<int64_t>{s.batch, s.tokens, heads, kv_heads, s.dim, s.repeat, s.stride};
    return rope_forward(qkv, cos, sin, s);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto saved = ctx->get_saved_variables();
    auto v = ctx->saved_data["shape"].toIntVector();
    const RopeShape s{v[0], v[1], v[2], v[3], v[4], v[5], v[6]};
    Tensor cos = saved[0].contiguous(), sin = saved[1].contiguous();
    auto token_first = [&](const Tensor& grad, int64_t heads) {
      return grad.defined() ? grad.transpose(1, 2).contiguous()
                            : at::zeros({s.batch, s.tokens, heads, s.dim}, cos.options());
    };
    Tensor dq = token_first(grads[0], s.heads), dk = token_first(grads[1], s.kv_heads * s.repeat);
    Tensor dv = token_first(grads[2], s.kv_heads * s.repeat);
    Tensor d_in = at::empty({s.batch, s.tokens, (s.heads + 2 * s.kv_heads) * s.dim}, dq.options());
    by_kind(dq, [&](const auto& kernels, auto type) {
      using T = typename decltype(type)::type;
      Rope<T> job{nullptr,     read<T>(cos),   read<T>(sin), nullptr,    nullptr, nullptr,  read<T>(dq), read<T>(dk),
                  read<T>(dv), write<T>(d_in), s.heads,      s.kv_heads, s.dim,   s.repeat, s.tokens,    s.stride};
      at::parallel_for(0, s.batch * s.tokens, grain(d_in.size(2)),
                       [&](int64_t a, int64_t b) { kernels.rope_grad(job, a, b); });
    });
    return {d_in, Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace
}  // namespace joust

extern "C" {

// `add` may be null; then `sum` is not written.
char* joust_norm(const Tensor* x, const Tensor* add, const Tensor* weight, double eps, Tensor** out, Tensor** sum) {
  return joust::guarded([&] {
    const Tensor more = add ? *add : Tensor();
    if (joust::records({x, &more, weight})) {
      auto result = joust::NormFunction::apply(*x, add ? std::optional<Tensor>(more) : std::nullopt, *weight, eps);
      *out = new Tensor(result[0]);
      if (add) *sum = new Tensor(result[1]);
      return;
    }
    auto result = joust::norm_forward(*x, more, *weight, eps, false);
    *out = new Tensor(result.out);
    if (add) *sum = new Tensor(result.sum);
  });
}

char* joust_gate(const Tensor* gate_up, Tensor** out) {
  return joust::guarded([&] {
    *out = new Tensor(joust::records({gate_up}) ? joust::GateFunction::apply(*gate_up) : joust::gate_forward(*gate_up));
  });
}

// `out` takes three tensors.
char* joust_rope(const Tensor* qkv, const Tensor* cos, const Tensor* sin, const int64_t* heads, Tensor** out) {
  return joust::guarded([&] {
    const bool repeat = heads[2] != 0;
    auto result = joust::records({qkv}) ? joust::RopeFunction::apply(*qkv, *cos, *sin, heads[0], heads[1], repeat)
                                        : joust::rope_forward(*qkv, *cos, *sin, joust::rope_shape(*qkv, *cos, heads[0], heads[1], repeat));
    for (int i = 0; i < 3; i++) out[i] = new Tensor(result[i]);
  });
}

}  // extern "C"
