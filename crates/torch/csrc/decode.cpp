// What sampling adds: matrices packed for few rows, attention of one new token a row, and draws from logits.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "border.h"

using at::Tensor;

namespace joust {
namespace {

bool can_pack() {
#if defined(__x86_64__)
  static const bool yes = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw");
  return yes;
#else
  return false;
#endif
}

Tensor pack(const Tensor& weight) {
  Tensor in = weight.contiguous();
  const int64_t outputs = in.size(0), width = in.size(1), blocks = (outputs + PACK - 1) / PACK;
  Tensor packed = at::zeros({blocks, width / 2, PACK, 2}, in.options());
  const bf16* from = read<bf16>(in);
  bf16* to = write<bf16>(packed);
  at::parallel_for(0, outputs, grain(width), [&](int64_t a, int64_t b) {
    for (int64_t row = a; row < b; row++) {
      bf16* column = to + row / PACK * PACK * width + row % PACK * 2;
      for (int64_t k = 0; k < width; k++) column[k / 2 * PACK * 2 + k % 2] = from[row * width + k];
    }
  });
  return packed;
}

struct Product {
  Tensor rows, packed;

  Product(const Tensor* x, const Tensor* by) {
    if (!x) return;
    rows = x->contiguous(), packed = *by;
    const int64_t width = packed.size(1) * 2;
    TORCH_CHECK(rows.size(-1) == width && rows.scalar_type() == at::kBFloat16, "expected bfloat16 rows of width ", width,
                ", got ", rows.scalar_type(), " ", rows.sizes());
  }

  int64_t width() const { return rows.defined() ? packed.size(1) * 2 : 0; }
  int64_t count() const { return rows.numel() / width(); }
  Factor factor() const { return {read<bf16>(rows), read<bf16>(packed), width()}; }
};

Tensor packed_linear(const Product& first, const Product& more, int64_t outputs, bool out_float) {
#if defined(__x86_64__)
  TORCH_CHECK(!more.width() || (more.count() == first.count() && more.packed.size(0) == first.packed.size(0)),
              "expected two products of one shape");
  auto shape = first.rows.sizes().vec();
  shape.back() = outputs;
  Tensor out = at::empty(shape, first.rows.options().dtype(out_float ? at::kFloat : at::kBFloat16));
  const Factor factors[2] = {first.factor(), more.factor()};
  at::parallel_for(0, first.packed.size(0), 4, [&](int64_t a, int64_t b) {
    for (int64_t block = a; block < b; block++) {
      packed_rows(factors, out.mutable_data_ptr(), out_float, first.count(), outputs, block);
    }
  });
  return out;
#else
  TORCH_CHECK(false, "packed matrices need AVX512-BF16");
#endif
}

struct Cache {
  const Tensor *keys, *values, *padding;
};

Tensor attend(const Tensor& qkv, const Tensor& cos, const Tensor& sin, const Cache& cache, const int64_t* sizes) {
  Tensor in = qkv.contiguous(), c = cos.contiguous(), n = sin.contiguous();
  const Tensor &keys = *cache.keys, &values = *cache.values;
  const int64_t heads = sizes[0], kv_heads = keys.size(2), dim = keys.size(3), batch = in.size(0), at = sizes[1];
  TORCH_CHECK(keys.is_contiguous() && values.is_contiguous() && at < keys.size(1) && keys.size(0) == batch &&
                  in.numel() == batch * (heads + 2 * kv_heads) * dim && keys.scalar_type() == in.scalar_type(),
              "expected a contiguous cache with room for token ", at, " of ", batch, " rows, got ", keys.sizes());
  TORCH_CHECK(c.numel() == dim || c.numel() == batch * dim, "expected tables for one token, got ", cos.sizes());
  Tensor out = at::empty({batch, 1, heads * dim}, in.options());
  by_kind(in, [&](const auto& kernels, auto type) {
    using T = typename decltype(type)::type;
    Attend<T> job{read<T>(in),   read<T>(c), read<T>(n), write<T>(keys), write<T>(values), write<T>(out),
                  cache.padding ? cache.padding->const_data_ptr<int64_t>() : nullptr,
                  heads, kv_heads, dim, keys.size(1), at, c.numel() == dim ? 0 : dim};
    at::parallel_for(0, batch * kv_heads, 4, [&](int64_t a, int64_t b) {
      std::vector<typename Accumulator<T>::type> scratch(heads / kv_heads * (2 * dim + at + 1));
      for (int64_t i = a; i < b; i++) kernels.attend(job, i, scratch.data());
    });
  });
  return out;
}

// Inverse CDF by blocks: sums of blocks first, then one block token by token.
void draw_row(const float* logits, int64_t vocab, double uniform, float scale, int64_t& id, float& logprob) {
  constexpr int64_t block = 1024;
  const Table& loops = table();
  const int64_t blocks = (vocab + block - 1) / block;
  auto length = [&](int64_t i) { return std::min(block, vocab - i * block); };
  const float peak = loops.largest(logits, vocab);
  std::vector<double> masses(blocks);
  double total = 0, plain = 0;
  for (int64_t i = 0; i < blocks; i++) {
    masses[i] = loops.mass(logits + i * block, length(i), peak, scale);
    total += masses[i];
    if (scale != 1.0f) plain += loops.mass(logits + i * block, length(i), peak, 1.0f);
  }
  if (scale == 1.0f) plain = total;
  double target = uniform * total;
  int64_t at = 0, last = 0;
  for (; at < blocks && target >= masses[at]; at++) {
    target -= masses[at];
    if (masses[at] > 0) last = at;
  }
  if (at == blocks) at = last, target = masses[last];  // rounding has passed the end
  id = at * block + loops.find(logits + at * block, length(at), peak, scale, target);
  logprob = logits[id] - peak - static_cast<float>(std::log(plain));
}

}  // namespace
}  // namespace joust

extern "C" {

bool joust_can_pack() { return joust::can_pack(); }

char* joust_pack(const Tensor* weight, Tensor** out) {
  return joust::guarded([&] {
    TORCH_CHECK(joust::can_pack() && weight->scalar_type() == at::kBFloat16 && weight->dim() == 2 && weight->size(1) % 2 == 0,
                "expected a bfloat16 matrix with an even number of columns, got ", weight->scalar_type(), " ", weight->sizes());
    *out = new Tensor(joust::pack(*weight));
  });
}

// `factors`: rows and packed matrix of a product, and of another one that is added to it, or nulls.
char* joust_packed_linear(const Tensor* const* factors, int64_t outputs, bool out_float, Tensor** out) {
  return joust::guarded([&] {
    *out = new Tensor(joust::packed_linear({factors[0], factors[1]}, {factors[2], factors[3]}, outputs, out_float));
  });
}

// `cache`: keys, values and padding (may be null); `sizes`: query heads and where the token is written.
char* joust_attend(const Tensor* qkv, const Tensor* const* tables, const Tensor* const* cache, const int64_t* sizes, Tensor** out) {
  return joust::guarded([&] {
    *out = new Tensor(joust::attend(*qkv, *tables[0], *tables[1], {cache[0], cache[1], cache[2]}, sizes));
  });
}

// `uniforms`, `ids` and `logprobs` hold one number a row.
char* joust_draw(const Tensor* logits, const double* uniforms, double temperature, int64_t* ids, float* logprobs) {
  return joust::guarded([&] {
    TORCH_CHECK(logits->scalar_type() == at::kFloat && logits->dim() == 2, "expected float32 logits [B, V]");
    Tensor in = logits->contiguous();
    const int64_t vocab = in.size(1);
    at::parallel_for(0, in.size(0), 1, [&](int64_t a, int64_t b) {
      for (int64_t row = a; row < b; row++) {
        joust::draw_row(in.const_data_ptr<float>() + row * vocab, vocab, uniforms[row], static_cast<float>(1.0 / temperature),
                        ids[row], logprobs[row]);
      }
    });
  });
}

}  // extern "C"
