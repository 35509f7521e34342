// Sums of rows by lists of their numbers: lays packed tokens out by sequence, and brings them back.
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include "border.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

namespace joust {
namespace {

// What C++ computes with.
template <class T> struct Number { using type = T; };
template <> struct Number<bf16> { using type = at::BFloat16; };

// Row i of the result is the sum of the rows of `x` that items[begins[i]], ..., items[begins[i + 1] - 1] name, or zeros.
Tensor summed(const Tensor& x, const Tensor& begins, const Tensor& items) {
  const Tensor in = x.contiguous();
  const int64_t rows = begins.numel() - 1, width = in.size(1), last = in.size(0);
  const int64_t *begin = begins.const_data_ptr<int64_t>(), *item = items.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < items.numel(); i++) {
    TORCH_CHECK(item[i] >= 0 && item[i] < last, "expected row numbers below ", last, ", got ", item[i]);
  }
  Tensor out = at::empty({rows, width}, in.options());
  by_kind(in, [&](const auto&, auto type) {
    using T = typename Number<typename decltype(type)::type>::type;
    using A = typename Accumulator<typename decltype(type)::type>::type;
    const T* from = read<T>(in);
    T* to = write<T>(out);
    at::parallel_for(0, rows, grain(width), [&](int64_t a, int64_t b) {
      for (int64_t i = a; i < b; i++) {
        const int64_t first = begin[i], count = begin[i + 1] - first;
        T* sum = to + i * width;
        if (count == 0) {
          std::memset(static_cast<void*>(sum), 0, width * sizeof(T));
        } else if (count == 1) {
          std::memcpy(static_cast<void*>(sum), from + item[first] * width, width * sizeof(T));
        } else {
          for (int64_t c = 0; c < width; c++) {
            A total = 0;
            for (int64_t k = 0; k < count; k++) total += static_cast<A>(from[item[first + k] * width + c]);
            sum[c] = static_cast<T>(total);
          }
        }
      }
    });
  });
  return out;
}

struct RowsFunction : Function<RowsFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& begins, const Tensor& items,
                        const Tensor& back_begins, const Tensor& back_items) {
    ctx->save_for_backward({back_begins, back_items});
    return summed(x, begins, items);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto back = ctx->get_saved_variables();
    return {summed(grads[0], back[0], back[1]), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace
}  // namespace joust

extern "C" {

// `lists`: begins and items of the result's rows, then those of the gradient's.
char* joust_sum_rows(const Tensor* x, const Tensor* const* lists, Tensor** out) {
  return joust::guarded([&] {
    TORCH_CHECK(x->dim() == 2, "expected rows [N, C], got ", x->sizes());
    const bool records = at::GradMode::is_enabled() && x->requires_grad();
    *out = new Tensor(records ? joust::RowsFunction::apply(*x, *lists[0], *lists[1], *lists[2], *lists[3])
                              : joust::summed(*x, *lists[0], *lists[1]));
  });
}

}  // extern "C"
