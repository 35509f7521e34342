// What training adds: log-probabilities without whole logits, compute copies of master weights, and AdamW in one pass.
#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "border.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

namespace joust {
namespace {

struct Limits {
  int64_t slice;  // elements of one slice of logits, [N, columns]
  int64_t kept;   // elements kept for the backward pass; slices beyond are computed again

  int64_t columns(int64_t rows) const { return std::max<int64_t>(16, slice / std::max<int64_t>(1, rows) / 16 * 16); }
};

// What is told of each whole distribution, from slices of its logits.
struct Shape {
  std::vector<Tensor> mass, mean, squares, best;  // log Σ e^z, the slice's mean z, log Σ e^2z, and its largest z

  void add(const Tensor& logits, int64_t k) {
    Tensor z = logits.to(sum_kind(logits));
    Tensor peak = std::get<0>(z.max(1, /*keepdim=*/true)), weight = (z - peak).exp_(), total = weight.sum(1);
    mass.push_back(total.log() + peak.squeeze(1));
    mean.push_back((weight * z).sum(1).div_(total));
    squares.push_back(weight.square_().sum(1).log_().add_(peak.squeeze(1), 2));
    best.push_back(std::get<0>(at::topk(z, std::min(k, z.size(1)), 1)));
  }

  // Entropy in nats, log Σ p², and the log-probs of the k most probable tokens.
  std::array<Tensor, 3> told(int64_t k) const {
    Tensor by_slice = at::stack(mass, 1), lse = at::logsumexp(by_slice, 1);
    Tensor share = (by_slice - lse.unsqueeze(1)).exp_();
    Tensor entropy = lse - (share * at::stack(mean, 1)).sum(1);
    Tensor log_squares = at::logsumexp(at::stack(squares, 1), 1).sub_(lse, 2);
    Tensor top = std::get<0>(at::topk(at::cat(best, 1), k, 1)) - lse.unsqueeze(1);
    return {entropy, log_squares, top};
  }
};

struct Scores {
  Tensor picked, lse;
  std::vector<Tensor> kept;
  std::array<Tensor, 3> told;  // where k > 0
};

Scores scores(const Tensor& rows, const Tensor& weight, const Tensor& targets, Limits limits, int64_t k) {
  Shape shape;
  const int64_t n = rows.size(0), vocab = weight.size(0), step = limits.columns(n);
  auto options = rows.options().dtype(sum_kind(rows));
  Tensor peak = at::full({n}, -std::numeric_limits<double>::infinity(), options);
  Tensor mass = at::zeros({n}, options), picked = at::zeros({n}, options);
  Scores result;
  for (int64_t first = 0; first < vocab; first += step) {
    const int64_t columns = std::min(step, vocab - first);
    Tensor logits = at::linear(rows, weight.narrow(0, first, columns)).contiguous();
    by_kind(logits, [&](const auto& kernels, auto type) {
      using T = typename decltype(type)::type;
      using A = typename Accumulator<T>::type;
      Slice<T> job{read<T>(logits), nullptr, targets.const_data_ptr<int64_t>(), write<A>(peak), write<A>(mass),
                   write<A>(picked), nullptr, nullptr, columns, first};
      at::parallel_for(0, n, grain(columns), [&](int64_t a, int64_t b) { kernels.slice(job, a, b); });
    });
    if (k > 0) shape.add(logits, k);
    if ((first + columns) * n <= limits.kept) result.kept.push_back(logits);
  }
  result.lse = mass.log_().add_(peak);
  result.picked = picked.sub_(result.lse);
  if (k > 0) result.told = shape.told(k);
  return result;
}

struct LogprobFunction : Function<LogprobFunction> {
  static variable_list forward(AutogradContext* ctx, const Tensor& rows, const Tensor& weight, const Tensor& targets,
                               Limits limits, int64_t k) {
    Scores result = scores(rows, weight, targets, limits, k);
    ctx->saved_data["step"] = limits.columns(rows.size(0));
    variable_list saved{rows, weight, targets, result.lse};
    saved.insert(saved.end(), result.kept.begin(), result.kept.end());
    ctx->save_for_backward(saved);
    if (k == 0) return {result.picked};
    const auto& [entropy, log_squares, top] = result.told;
    ctx->mark_non_differentiable({entropy, log_squares, top});
    return {result.picked, entropy, log_squares, top};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const Tensor &rows = saved[0], &weight = saved[1], &targets = saved[2], &lse = saved[3];
    const int64_t n = rows.size(0), vocab = weight.size(0), step = ctx->saved_data["step"].toInt();
    Tensor grad = grads[0].to(lse.scalar_type()).contiguous();
    const bool wide = rows.scalar_type() == lse.scalar_type();
    Tensor d_rows = at::zeros(rows.sizes(), lse.options());
    Tensor d_weight = ctx->needs_input_grad(1) ? at::empty(weight.sizes(), weight.options()) : Tensor();
    Tensor buffer = at::empty({n * std::min(step, vocab)}, rows.options());
    for (int64_t first = 0; first < vocab; first += step) {
      const int64_t columns = std::min(step, vocab - first), index = 4 + first / step;
      Tensor part = weight.narrow(0, first, columns);
      Tensor logits = index < static_cast<int64_t>(saved.size()) ? saved[index] : at::linear(rows, part).contiguous();
      Tensor d_logits = buffer.narrow(0, 0, n * columns).view({n, columns});
      by_kind(logits, [&](const auto& kernels, auto type) {
        using T = typename decltype(type)::type;
        using A = typename Accumulator<T>::type;
        Slice<T> job{read<T>(logits), write<T>(d_logits), targets.const_data_ptr<int64_t>(), nullptr, nullptr, nullptr,
                     read<A>(lse), read<A>(grad), columns, first};
        at::parallel_for(0, n, grain(columns), [&](int64_t a, int64_t b) { kernels.slice_grad(job, a, b); });
      });
      // Slices are sums of their own, gathered in float32.
      if (wide) d_rows.addmm_(d_logits, part);
      else d_rows.add_(at::mm(d_logits, part));
      if (d_weight.defined()) {
        Tensor d_part = d_weight.narrow(0, first, columns);
        at::mm_out(d_part, d_logits.t(), rows);
      }
    }
    return {d_rows.to(rows.scalar_type()), d_weight, Tensor(), Tensor(), Tensor()};
  }
};

void gather_gradient(const Tensor& master, const Tensor& more) {
  Tensor leaf = master;
  Tensor& sum = leaf.mutable_grad();
  if (!sum.defined()) {
    sum = more.to(master.scalar_type(), /*non_blocking=*/false, /*copy=*/true).contiguous();
    return;
  }
  if (more.is_cpu() && more.scalar_type() == at::kBFloat16 && sum.scalar_type() == at::kFloat && sum.is_contiguous()) {
    Tensor in = more.contiguous();
    at::parallel_for(0, in.numel(), 32768, [&](int64_t a, int64_t b) {
      table().accumulate(sum.mutable_data_ptr<float>(), read<bf16>(in), a, b);
    });
  } else {
    sum.add_(more);
  }
}

// Gives Rust the gradient of a copy. Every copy that has one holds a reference, so that the context outlives the last backward pass that can
// call it.
struct Sink : torch::CustomClassHolder {
  Sink(void* context, void (*call)(void*, int64_t, Tensor*), void (*release)(void*))
      : context(context), call(call), release(release) {}
  ~Sink() override { release(context); }
  void* context;
  void (*call)(void*, int64_t, Tensor*);
  void (*release)(void*);
};

// Stands for the masters, stacked by rows, in the kind of `copy`, which the caller keeps equal to them.
struct CopyFunction : Function<CopyFunction> {
  // Autograd does not look into lists of tensors.
  static Tensor forward(AutogradContext* ctx, const Tensor& copy, const Tensor& a, const std::optional<Tensor>& b,
                        const std::optional<Tensor>& c, const c10::intrusive_ptr<Sink>& sink, int64_t id) {
    if (sink) {
      ctx->saved_data["sink"] = c10::IValue::make_capsule(sink);
      ctx->saved_data["id"] = id;
      return copy.variable_data();
    }
    std::vector<Tensor> masters{a};
    if (b) masters.push_back(*b);
    if (c) masters.push_back(*c);
    ctx->saved_data["masters"] = masters;
    return copy.variable_data();
  }

  // Adds to the masters' gradients itself: handing them on would cost one more pass in float32.
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    at::AutoDispatchBelowAutograd no_autograd;
    if (auto sink = ctx->saved_data.find("sink"); sink != ctx->saved_data.end()) {
      auto held = c10::static_intrusive_pointer_cast<Sink>(sink->second.toCapsule());
      if (grads[0].defined()) held->call(held->context, ctx->saved_data["id"].toInt(), new Tensor(grads[0]));
      return variable_list(6);
    }
    auto masters = ctx->saved_data["masters"].toTensorVector();
    int64_t at = 0;
    for (const Tensor& master : masters) {
      const int64_t rows = master.size(0);
      if (grads[0].defined()) gather_gradient(master, grads[0].narrow(0, at, rows));
      at += rows;
    }
    return variable_list(6);
  }
};

}  // namespace
}  // namespace joust

extern "C" {

// `limits`: elements of one slice, and elements of all slices kept for the backward pass. With k > 0 `out` has room for entropy, log Σ p² and the
// log-probs of the k most probable tokens as well, which carry no gradient.
char* joust_logprobs(const Tensor* rows, const Tensor* weight, const Tensor* targets, const int64_t* limits, int64_t k,
                      Tensor** out) {
  return joust::guarded([&] {
    TORCH_CHECK(k <= weight->size(0), "expected k of at most ", weight->size(0), " tokens, got ", k);
    TORCH_CHECK(targets->scalar_type() == at::kLong && targets->size(0) == rows->size(0), "expected targets int64 [",
                rows->size(0), "], got ", targets->scalar_type(), " ", targets->sizes());
    Tensor in = rows->contiguous(), ids = targets->contiguous();
    const bool records = at::GradMode::is_enabled() && (rows->requires_grad() || weight->requires_grad());
    variable_list made;
    if (records) {
      made = joust::LogprobFunction::apply(in, *weight, ids, joust::Limits{limits[0], limits[1]}, k);
    } else {
      auto [picked, lse, kept, told] = joust::scores(in, *weight, ids, {limits[0], 0}, k);
      made = {picked, told[0], told[1], told[2]};
    }
    for (int64_t i = 0; i < (k > 0 ? 4 : 1); ++i) out[i] = new Tensor(made[i]);
  });
}

using SinkPtr = c10::intrusive_ptr<joust::Sink>;

// Ends the process where memory is out, as Rust's own allocations do.
void* joust_sink_new(void* context, void (*call)(void*, int64_t, Tensor*), void (*release)(void*)) noexcept {
  return new SinkPtr(c10::make_intrusive<joust::Sink>(context, call, release));
}

void joust_sink_free(void* sink) { delete static_cast<SinkPtr*>(sink); }

// `sink` may be null; else it is given the gradient, with `id`, and the masters are not.
char* joust_compute_copy(const Tensor* copy, const Tensor* const* masters, int64_t count, void* sink, int64_t id, Tensor** out) {
  return joust::guarded([&] {
    TORCH_CHECK(count >= 1 && count <= 3, "expected one to three masters, got ", count);
    std::optional<Tensor> b, c;
    if (count > 1) b = *masters[1];
    if (count > 2) c = *masters[2];
    const SinkPtr held = sink == nullptr ? SinkPtr() : *static_cast<SinkPtr*>(sink);
    *out = new Tensor(joust::CopyFunction::apply(*copy, *masters[0], b, c, held, id));
  });
}

char* joust_clear_grad(const Tensor* tensor) {
  return joust::guarded([&] {
    Tensor leaf = *tensor;
    leaf.mutable_grad() = Tensor();
  });
}

char* joust_set_grad(const Tensor* tensor, const Tensor* grad) {
  return joust::guarded([&] {
    TORCH_CHECK(tensor->sizes() == grad->sizes() && tensor->scalar_type() == grad->scalar_type(), "a gradient of shape ",
                grad->sizes(), " does not fit ", tensor->sizes());
    Tensor leaf = *tensor;
    leaf.mutable_grad() = *grad;
  });
}

// Returns -1 for a tensor that counts no versions, as those made under inference mode.
int64_t joust_version(const Tensor* tensor) {
  try {
    return static_cast<int64_t>(tensor->_version());
  } catch (...) {
    return -1;
  }
}

// Adds the squares of a contiguous float32 tensor, in blocks whose size does not depend on the number of threads.
char* joust_square_sum(const Tensor* values, double* out) {
  return joust::guarded([&] {
    TORCH_CHECK(values->is_contiguous() && values->scalar_type() == at::kFloat, "expected contiguous float32");
    constexpr int64_t block = 16384;
    const int64_t n = values->numel(), blocks = (n + block - 1) / block;
    std::vector<float> sums(blocks);
    const float* data = values->const_data_ptr<float>();
    at::parallel_for(0, blocks, 4, [&](int64_t a, int64_t b) {
      for (int64_t i = a; i < b; i++) sums[i] = joust::table().square_sum(data, i * block, std::min(n, (i + 1) * block));
    });
    double total = 0;
    for (float sum : sums) total += sum;
    *out = total;
  });
}

struct JoustAdamW {
  float scale, decay, beta1, beta2, step_size, root_correction, epsilon;
};

// All contiguous float32 of one size; `copy` (bfloat16) may be null.
char* joust_adamw(const Tensor* weight, const Tensor* gradient, const Tensor* first, const Tensor* second,
                  const Tensor* copy, const JoustAdamW* with) {
  return joust::guarded([&] {
    for (const Tensor* tensor : {weight, gradient, first, second}) {
      TORCH_CHECK(tensor->is_contiguous() && tensor->scalar_type() == at::kFloat && tensor->numel() == weight->numel(),
                  "expected contiguous float32 tensors of one size");
    }
    TORCH_CHECK(!copy || (copy->is_contiguous() && copy->scalar_type() == at::kBFloat16 && copy->numel() == weight->numel()),
                "expected a contiguous bfloat16 copy of the same size");
    joust::AdamW job{weight->mutable_data_ptr<float>(), first->mutable_data_ptr<float>(),
                     second->mutable_data_ptr<float>(), gradient->const_data_ptr<float>(),
                     copy ? joust::write<joust::bf16>(*copy) : nullptr, with->scale, with->decay, with->beta1, with->beta2,
                     with->step_size, with->root_correction, with->epsilon};
    at::parallel_for(0, weight->numel(), 32768, [&](int64_t a, int64_t b) { joust::table().adamw(job, a, b); });
  });
}

}  // extern "C"
