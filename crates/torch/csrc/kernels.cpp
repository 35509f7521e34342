// The loops of kernels.h. JOUST_ISA names the instruction set that this object is compiled for.
// Reductions are marked for vectorisation one by one; nothing else may be reordered, so results are the same on each run.
#include "kernels.h"

namespace joust {
namespace JOUST_ISA {

inline float up(float x) { return x; }
inline double up(double x) { return x; }
inline float up(bf16 x) { return __builtin_bit_cast(float, static_cast<uint32_t>(x) << 16); }

template <class T, class A> inline T down(A x) {
  if constexpr (sizeof(T) == 2) {
    uint32_t bits = __builtin_bit_cast(uint32_t, x);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;  // to nearest, ties to even
    // Masks, not a branch: the compiler vectorises no loop in which it has joined this test with another one.
    uint32_t nan = -static_cast<uint32_t>((bits & 0x7fffffffu) > 0x7f800000u);
    return static_cast<T>((rounded & ~nan) | (0x7fc0u & nan));
  } else {
    return x;
  }
}

inline double exponential(double x) { return __builtin_exp(x); }

// exp with a relative error below 2e-7; 0 below -87, where float32 leaves the normal numbers.
inline float exponential(float x) {
  float clamped = x < -87.0f ? -87.0f : x;
  clamped = clamped > 88.0f ? 88.0f : clamped;
  int32_t n = static_cast<int32_t>(clamped * 1.44269504f + (clamped < 0.0f ? -0.5f : 0.5f));
  float r = clamped - static_cast<float>(n) * 0.693359375f;
  r = r - static_cast<float>(n) * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  float scaled = p * __builtin_bit_cast(float, (n + 127) << 23);
  // A mask again; a NaN fails all comparisons and comes out of the polynomial as one.
  uint32_t kept = static_cast<uint32_t>(x < -87.0f) - 1u;
  return __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, scaled) & kept);
}

inline float root(float x) { return __builtin_sqrtf(x); }
inline double root(double x) { return __builtin_sqrt(x); }

template <class T> using Acc = typename Accumulator<T>::type;

template <class T> void norm(const Norm<T>& n, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const int64_t width = n.width;
  for (int64_t row = begin; row < end; row++) {
    const T* x = n.x + row * width;
    T* out = n.out + row * width;
    A squares = 0;
    if (n.add) {
      const T* add = n.add + row * width;
      T* sum = n.sum + row * width;
#pragma omp simd reduction(+ : squares)
      for (int64_t i = 0; i < width; i++) {
        T s = down<T>(up(x[i]) + up(add[i]));
        sum[i] = s;
        squares += up(s) * up(s);
      }
      x = sum;
    } else {
#pragma omp simd reduction(+ : squares)
      for (int64_t i = 0; i < width; i++) squares += up(x[i]) * up(x[i]);
    }
    A r = A(1) / root(squares / A(width) + A(n.eps));
    if (n.rstd) n.rstd[row] = r;
#pragma omp simd
    for (int64_t i = 0; i < width; i++) out[i] = down<T>(up(down<T>(up(x[i]) * r)) * up(n.weight[i]));
  }
}

template <class T> void norm_grad(const NormGrad<T>& n, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const int64_t width = n.width;
  for (int64_t row = begin; row < end; row++) {
    const T *d_out = n.d_out + row * width, *x = n.sum + row * width;
    T* dx = n.dx + row * width;
    const A r = n.rstd[row];
    A dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < width; i++) dot += up(d_out[i]) * up(n.weight[i]) * up(x[i]);
    const A back = dot * r * r * r / A(width);
    if (n.d_sum) {
      const T* d_sum = n.d_sum + row * width;
#pragma omp simd
      for (int64_t i = 0; i < width; i++) {
        n.d_weight[i] += up(d_out[i]) * up(down<T>(up(x[i]) * r));
        dx[i] = down<T>(up(d_sum[i]) + up(d_out[i]) * up(n.weight[i]) * r - up(x[i]) * back);
      }
    } else {
#pragma omp simd
      for (int64_t i = 0; i < width; i++) {
        n.d_weight[i] += up(d_out[i]) * up(down<T>(up(x[i]) * r));
        dx[i] = down<T>(up(d_out[i]) * up(n.weight[i]) * r - up(x[i]) * back);
      }
    }
  }
}

template <class T> void gate(const Gate<T>& g, int64_t begin, int64_t end) {
  using A = Acc<T>;
  for (int64_t row = begin; row < end; row++) {
    const T *gate = g.gate_up + row * 2 * g.inner, *scale = gate + g.inner;
    T* out = g.out + row * g.inner;
#pragma omp simd
    for (int64_t i = 0; i < g.inner; i++) {
      A x = up(gate[i]);
      out[i] = down<T>(up(down<T>(x / (A(1) + exponential(-x)))) * up(scale[i]));
    }
  }
}

template <class T> void gate_grad(const Gate<T>& g, int64_t begin, int64_t end) {
  using A = Acc<T>;
  for (int64_t row = begin; row < end; row++) {
    const T *gate = g.gate_up + row * 2 * g.inner, *scale = gate + g.inner, *d_out = g.d_out + row * g.inner;
    T *d_gate = g.d_gate_up + row * 2 * g.inner, *d_scale = d_gate + g.inner;
#pragma omp simd
    for (int64_t i = 0; i < g.inner; i++) {
      A x = up(gate[i]), d = up(d_out[i]);
      A sigmoid = A(1) / (A(1) + exponential(-x));
      d_gate[i] = down<T>(d * up(scale[i]) * sigmoid * (A(1) + x * (A(1) - sigmoid)));
      d_scale[i] = down<T>(d * up(down<T>(x * sigmoid)));
    }
  }
}

// Turns one head; the two halves are rotated against each other. `sign` -1 turns back.
template <class T> inline void turn(const T* x, const T* cos, const T* sin, T* out, int64_t dim, Acc<T> sign) {
  const int64_t half = dim / 2;
#pragma omp simd
  for (int64_t i = 0; i < half; i++) {
    Acc<T> a = up(x[i]), b = up(x[half + i]), s = sign * up(sin[i]), c = up(cos[i]);
    out[i] = down<T>(a * c - b * s);
    out[half + i] = down<T>(b * c + a * s);
  }
}

template <class T> void rope(const Rope<T>& r, int64_t begin, int64_t end) {
  const int64_t dim = r.dim, wide = r.kv_heads * r.repeat;
  for (int64_t row = begin; row < end; row++) {
    const T* x = r.qkv + row * (r.heads + 2 * r.kv_heads) * dim;
    const int64_t table = row / r.tokens * r.table_stride + row % r.tokens * dim;
    const T *cos = r.cos + table, *sin = r.sin + table;
    for (int64_t h = 0; h < r.heads; h++, x += dim) turn(x, cos, sin, r.query + (row * r.heads + h) * dim, dim, Acc<T>(1));
    for (int64_t h = 0; h < wide; h++) {
      turn(x + h / r.repeat * dim, cos, sin, r.key + (row * wide + h) * dim, dim, Acc<T>(1));
    }
    x += r.kv_heads * dim;
    for (int64_t h = 0; h < wide; h++) {
      T* value = r.value + (row * wide + h) * dim;
      for (int64_t i = 0; i < dim; i++) value[i] = x[h / r.repeat * dim + i];
    }
  }
}

// Sums the heads that one key or value head was repeated to.
template <class T> inline void gather_heads(const T* x, T* out, int64_t dim, int64_t repeat) {
#pragma omp simd
  for (int64_t i = 0; i < dim; i++) {
    Acc<T> sum = 0;
    for (int64_t j = 0; j < repeat; j++) sum += up(x[j * dim + i]);
    out[i] = down<T>(sum);
  }
}

template <class T> void rope_grad(const Rope<T>& r, int64_t begin, int64_t end) {
  const int64_t dim = r.dim, wide = r.kv_heads * r.repeat;
  for (int64_t row = begin; row < end; row++) {
    T* out = r.d_qkv + row * (r.heads + 2 * r.kv_heads) * dim;
    const int64_t table = row / r.tokens * r.table_stride + row % r.tokens * dim;
    const T *cos = r.cos + table, *sin = r.sin + table;
    for (int64_t h = 0; h < r.heads; h++, out += dim) {
      turn(r.d_query + (row * r.heads + h) * dim, cos, sin, out, dim, Acc<T>(-1));
    }
    for (int64_t h = 0; h < r.kv_heads; h++, out += dim) {
      gather_heads(r.d_key + (row * wide + h * r.repeat) * dim, out, dim, r.repeat);
      turn(out, cos, sin, out, dim, Acc<T>(-1));
    }
    for (int64_t h = 0; h < r.kv_heads; h++, out += dim) {
      gather_heads(r.d_value + (row * wide + h * r.repeat) * dim, out, dim, r.repeat);
    }
  }
}

template <class T> void slice(const Slice<T>& s, int64_t begin, int64_t end) {
  using A = Acc<T>;
  for (int64_t row = begin; row < end; row++) {
    const T* logits = s.logits + row * s.columns;
    A peak = s.peak[row];
#pragma omp simd reduction(max : peak)
    for (int64_t i = 0; i < s.columns; i++) peak = up(logits[i]) > peak ? up(logits[i]) : peak;
    A mass = 0;
#pragma omp simd reduction(+ : mass)
    for (int64_t i = 0; i < s.columns; i++) mass += exponential(up(logits[i]) - peak);
    s.mass[row] = s.mass[row] * exponential(s.peak[row] - peak) + mass;
    s.peak[row] = peak;
    const int64_t target = s.targets[row] - s.first;
    if (target >= 0 && target < s.columns) s.picked[row] = up(logits[target]);
  }
}

template <class T> void slice_grad(const Slice<T>& s, int64_t begin, int64_t end) {
  using A = Acc<T>;
  for (int64_t row = begin; row < end; row++) {
    const T* logits = s.logits + row * s.columns;
    T* out = s.d_logits + row * s.columns;
    const A lse = s.lse[row], grad = s.grad[row];
#pragma omp simd
    for (int64_t i = 0; i < s.columns; i++) out[i] = down<T>(-grad * exponential(up(logits[i]) - lse));
    const int64_t target = s.targets[row] - s.first;
    if (target >= 0 && target < s.columns) {
      out[target] = down<T>(grad * (A(1) - exponential(up(logits[target]) - lse)));
    }
  }
}

template <class T> void attend(const Attend<T>& a, int64_t job, Acc<T>* scratch) {
  using A = Acc<T>;
  const int64_t row = job / a.kv_heads, head = job % a.kv_heads, group = a.heads / a.kv_heads, dim = a.dim;
  const T* qkv = a.qkv + row * (a.heads + 2 * a.kv_heads) * dim;
  const T *cos = a.cos + row * a.table_stride, *sin = a.sin + row * a.table_stride;
  const int64_t stride = a.kv_heads * dim, cache = (row * a.capacity * a.kv_heads + head) * dim;
  T *keys = a.keys + cache, *values = a.values + cache, *out = a.out + (row * a.heads + head * group) * dim;
  turn(qkv + (a.heads + head) * dim, cos, sin, keys + a.at * stride, dim, A(1));
  const T* value = qkv + (a.heads + a.kv_heads + head) * dim;
  for (int64_t i = 0; i < dim; i++) values[a.at * stride + i] = value[i];
  A *query = scratch, *sum = query + group * dim, *weights = sum + group * dim;
  const A scale = A(1) / root(A(dim));
  for (int64_t g = 0; g < group; g++) {
    // Turned into `out` first, so that the query is rounded as a stored one would be.
    turn(qkv + (head * group + g) * dim, cos, sin, out + g * dim, dim, A(1));
#pragma omp simd
    for (int64_t i = 0; i < dim; i++) query[g * dim + i] = up(out[g * dim + i]) * scale, sum[g * dim + i] = 0;
  }
  const int64_t first = a.padding ? a.padding[row] : 0, count = a.at + 1;
  for (int64_t t = first; t < count; t++) {
    const T* key = keys + t * stride;
    for (int64_t g = 0; g < group; g++) {
      A dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int64_t i = 0; i < dim; i++) dot += query[g * dim + i] * up(key[i]);
      weights[g * count + t] = dot;
    }
  }
  for (int64_t g = 0; g < group; g++) {
    A *w = weights + g * count, peak = w[first], mass = 0;
#pragma omp simd reduction(max : peak)
    for (int64_t t = first; t < count; t++) peak = w[t] > peak ? w[t] : peak;
#pragma omp simd reduction(+ : mass)
    for (int64_t t = first; t < count; t++) mass += w[t] = exponential(w[t] - peak);
#pragma omp simd
    for (int64_t t = first; t < count; t++) w[t] /= mass;
  }
  for (int64_t t = first; t < count; t++) {
    const T* value = values + t * stride;
    for (int64_t g = 0; g < group; g++) {
      const A weight = weights[g * count + t];
#pragma omp simd
      for (int64_t i = 0; i < dim; i++) sum[g * dim + i] += weight * up(value[i]);
    }
  }
#pragma omp simd
  for (int64_t i = 0; i < group * dim; i++) out[i] = down<T>(sum[i]);
}

// Philox 4x32-10 of one counter, in place.
inline void philox(uint32_t (&c)[4], uint32_t k0, uint32_t k1) {
#pragma GCC unroll 10
  for (int round = 0; round < 10; round++) {
    const uint64_t a = uint64_t(0xD2511F53u) * c[0], b = uint64_t(0xCD9E8D57u) * c[2];
    const uint32_t high_a = static_cast<uint32_t>(a >> 32), high_b = static_cast<uint32_t>(b >> 32);
    c[0] = high_b ^ c[1] ^ k0, c[1] = static_cast<uint32_t>(b);
    c[2] = high_a ^ c[3] ^ k1, c[3] = static_cast<uint32_t>(a);
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
}

template <class T> void dropout(const Dropout<T>& d, int64_t begin, int64_t end) {
  for (int64_t group = begin; group < end; group++) {
    uint32_t draws[MASK_GROUP];
#pragma omp simd
    for (int64_t lane = 0; lane < MASK_LANES; lane++) {
      uint32_t c[4] = {static_cast<uint32_t>(group * MASK_LANES + lane), d.place[0], d.place[1], d.place[2]};
      philox(c, d.key[0], d.key[1]);
      draws[lane] = c[0], draws[MASK_LANES + lane] = c[1];
      draws[2 * MASK_LANES + lane] = c[2], draws[3 * MASK_LANES + lane] = c[3];
    }
    const int64_t first = group * MASK_GROUP, left = d.count - first, many = left < MASK_GROUP ? left : MASK_GROUP;
#pragma omp simd
    for (int64_t i = 0; i < many; i++) {
      const Acc<T> kept = up(d.x[first + i]) * Acc<T>(d.scale);
      d.out[first + i] = down<T>(draws[i] < d.below ? Acc<T>(0) : kept);
    }
  }
}

float largest(const float* values, int64_t count) {
  float peak = values[0];
#pragma omp simd reduction(max : peak)
  for (int64_t i = 0; i < count; i++) peak = values[i] > peak ? values[i] : peak;
  return peak;
}

float mass(const float* values, int64_t count, float peak, float scale) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; i++) sum += exponential((values[i] - peak) * scale);
  return sum;
}

int64_t find(const float* values, int64_t count, float peak, float scale, double target) {
  double sum = 0;
  int64_t last = 0;
  for (int64_t i = 0; i < count; i++) {
    float weight = exponential((values[i] - peak) * scale);
    if (weight > 0.0f) last = i;
    sum += weight;
    if (sum > target) return i;
  }
  return last;
}

void adamw(const AdamW& a, int64_t begin, int64_t end) {
#pragma omp simd
  for (int64_t i = begin; i < end; i++) {
    float gradient = a.gradient[i] * a.scale;
    float first = a.first[i] + (gradient - a.first[i]) * (1.0f - a.beta1);
    float second = a.second[i] * a.beta2 + gradient * gradient * (1.0f - a.beta2);
    a.first[i] = first;
    a.second[i] = second;
    a.weight[i] = a.weight[i] * a.decay - a.step_size * first / (root(second) / a.root_correction + a.epsilon);
  }
  if (!a.copy) return;
#pragma omp simd
  for (int64_t i = begin; i < end; i++) a.copy[i] = down<bf16>(a.weight[i]);
}

void accumulate(float* sum, const bf16* more, int64_t begin, int64_t end) {
#pragma omp simd
  for (int64_t i = begin; i < end; i++) sum[i] += up(more[i]);
}

float square_sum(const float* values, int64_t begin, int64_t end) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = begin; i < end; i++) sum += values[i] * values[i];
  return sum;
}

template <class T> constexpr Kernels<T> kernels() {
  return {norm<T>, norm_grad<T>, gate<T>, gate_grad<T>, rope<T>, rope_grad<T>, slice<T>, slice_grad<T>, attend<T>,
          dropout<T>};
}

}  // namespace JOUST_ISA

#define JOUST_NAME_(isa) table_##isa
#define JOUST_NAME(isa) JOUST_NAME_(isa)
const Table& JOUST_NAME(JOUST_ISA)() {
  using namespace JOUST_ISA;
  static constexpr Table table{kernels<float>(), kernels<bf16>(), kernels<double>(), adamw, accumulate, square_sum,
                               largest,          mass,             find};
  return table;
}

}  // namespace joust
