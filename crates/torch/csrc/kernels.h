// Plain loops over rows, compiled once for each instruction set; no libtorch and no standard library in here, so that no
// inline function of theirs is ever compiled for a CPU that the machine may not have.
#pragma once
#include <cstdint>

namespace joust {

// A bfloat16 by its bits; a scalar, since loops over structs are not vectorised.
enum class bf16 : uint16_t {};

// float32 sums for bfloat16 and float32; float64 exists so that gradients can be checked by differences.
template <class T> struct Accumulator { using type = float; };
template <> struct Accumulator<double> { using type = double; };

// RMS norm of rows [begin, end) of x (+ add); `sum` takes x + add.
template <class T> struct Norm {
  const T *x, *add, *weight;
  T *sum, *out;
  typename Accumulator<T>::type* rstd;
  int64_t width;
  double eps;
};

// `d_sum` may be null; `d_weight` [width] is added to.
template <class T> struct NormGrad {
  const T *d_out, *d_sum, *sum, *weight;
  const typename Accumulator<T>::type* rstd;
  T* dx;
  typename Accumulator<T>::type* d_weight;
  int64_t width;
};

// silu(gate)·up of rows [gate | up] of 2·inner.
template <class T> struct Gate {
  const T *gate_up, *d_out;
  T *out, *d_gate_up;
  int64_t inner;
};

// One row is one token: query heads, then key heads, then value heads, each of `dim`.
template <class T> struct Rope {
  const T *qkv, *cos, *sin;
  T *query, *key, *value;  // [tokens, heads, dim]; keys and values repeated `repeat` times
  const T *d_query, *d_key, *d_value;
  T* d_qkv;
  int64_t heads, kv_heads, dim, repeat;
  int64_t tokens;        // tokens of one batch row
  int64_t table_stride;  // elements between the tables of two batch rows, 0 when shared
};

// One slice of the vocabulary, [rows, columns], whose first column is token `first`.
template <class T> struct Slice {
  using A = typename Accumulator<T>::type;
  const T* logits;
  T* d_logits;
  const int64_t* targets;
  A *peak, *mass, *picked;   // running maximum, sum of exponentials over it, and the target's logit
  const A *lse, *grad;
  int64_t columns, first;
};

// Attention of one new token a row over a cache [B, capacity, kv_heads, dim]; one job is one (row, kv head).
template <class T> struct Attend {
  const T *qkv, *cos, *sin;
  T *keys, *values, *out;
  const int64_t* padding;  // tokens to skip at each row's start, or null
  int64_t heads, kv_heads, dim, capacity, at;
  int64_t table_stride;
};

// Zeroes elements and scales the others up; which ones is Philox 4x32-10 of the element's number under `place` and `key`, so that a
// mask is never kept. One group holds 64 elements.
constexpr int64_t MASK_LANES = 16, MASK_GROUP = 4 * MASK_LANES;
template <class T> struct Dropout {
  const T* x;
  T* out;
  int64_t count;
  uint32_t key[2], place[3];
  uint32_t below;  // elements with a smaller draw are zeroed
  float scale;
};

template <class T> struct Kernels {
  void (*norm)(const Norm<T>&, int64_t begin, int64_t end);
  void (*norm_grad)(const NormGrad<T>&, int64_t begin, int64_t end);
  void (*gate)(const Gate<T>&, int64_t begin, int64_t end);
  void (*gate_grad)(const Gate<T>&, int64_t begin, int64_t end);
  void (*rope)(const Rope<T>&, int64_t begin, int64_t end);
  void (*rope_grad)(const Rope<T>&, int64_t begin, int64_t end);
  void (*slice)(const Slice<T>&, int64_t begin, int64_t end);
  void (*slice_grad)(const Slice<T>&, int64_t begin, int64_t end);
  // `scratch` holds heads / kv_heads · (2·dim + at + 1) numbers.
  void (*attend)(const Attend<T>&, int64_t job, typename Accumulator<T>::type* scratch);
  void (*dropout)(const Dropout<T>&, int64_t begin, int64_t end);
};

struct AdamW {
  float *weight, *first, *second;
  const float* gradient;
  bf16* copy;  // may be null
  float scale, decay, beta1, beta2, step_size, root_correction, epsilon;
};

struct Table {
  Kernels<float> f32;
  Kernels<bf16> b16;
  Kernels<double> f64;
  void (*adamw)(const AdamW&, int64_t begin, int64_t end);
  void (*accumulate)(float* sum, const bf16* more, int64_t begin, int64_t end);
  float (*square_sum)(const float* values, int64_t begin, int64_t end);
  float (*largest)(const float* values, int64_t count);
  // Adds exp((values - peak)·scale).
  float (*mass)(const float* values, int64_t count, float peak, float scale);
  // The first index at which the running sum of exp((values - peak)·scale) exceeds `target`, or the last with any mass.
  int64_t (*find)(const float* values, int64_t count, float peak, float scale, double target);
};

// Rows [count, width] and the packed matrix that they are multiplied by; a width of 0 stands for none.
struct Factor {
  const bf16 *rows, *packed;
  int64_t width;
};

// Adds the products of both factors and rounds once, for one block of outputs; see packed.cpp.
constexpr int64_t PACK = 32;
void packed_rows(const Factor (&factors)[2], void* out, bool out_float, int64_t count, int64_t outputs, int64_t block);

const Table& table_base();
const Table& table_avx2();
const Table& table_avx512();

}  // namespace joust
