// Matrix products of few rows by a bfloat16 matrix packed once, with AVX512-BF16's dot products of pairs.
// A block holds 32 outputs: for each pair of inputs, 32 pairs side by side, so that weights are read once and in order.
#include "kernels.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>

namespace joust {
namespace {

// Sums of ROWS rows in registers: 16 of the 32, beside two of weights.
template <int ROWS> inline void multiply(const bf16* x, const bf16* block, __m512 (&sums)[8][2], int64_t width) {
  for (int64_t k = 0; k < width; k += 2) {
    const __m512bh low = (__m512bh)_mm512_loadu_si512(block + k * PACK);
    const __m512bh high = (__m512bh)_mm512_loadu_si512(block + k * PACK + PACK);
    for (int row = 0; row < ROWS; row++) {
      int pair;
      __builtin_memcpy(&pair, x + row * width + k, sizeof pair);
      const __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
      sums[row][0] = _mm512_dpbf16_ps(sums[row][0], low, both);
      sums[row][1] = _mm512_dpbf16_ps(sums[row][1], high, both);
    }
  }
}

template <int ROWS>
void rows(const Factor* factors, int64_t first, void* out, bool out_float, int64_t outputs, int64_t at) {
  __m512 sums[8][2];
  for (int row = 0; row < ROWS; row++) sums[row][0] = sums[row][1] = _mm512_setzero_ps();
  for (const Factor* f = factors; f != factors + 2 && f->width; f++) {
    multiply<ROWS>(f->rows + first * f->width, f->packed + at * f->width, sums, f->width);
  }
  const int64_t left = outputs - at;
  const __mmask32 mask = left >= PACK ? ~0u : (1u << left) - 1;
  for (int row = 0; row < ROWS; row++) {
    if (out_float) {
      float* to = static_cast<float*>(out) + row * outputs + at;
      _mm512_mask_storeu_ps(to, static_cast<__mmask16>(mask), sums[row][0]);
      _mm512_mask_storeu_ps(to + 16, static_cast<__mmask16>(mask >> 16), sums[row][1]);
    } else {
      bf16* to = static_cast<bf16*>(out) + row * outputs + at;
      _mm512_mask_storeu_epi16(to, mask, (__m512i)_mm512_cvtne2ps_pbh(sums[row][1], sums[row][0]));
    }
  }
}

}  // namespace

void packed_rows(const Factor (&factors)[2], void* out, bool out_float, int64_t count, int64_t outputs, int64_t block) {
  const int64_t size = out_float ? 4 : 2;
  auto run = [&](auto kernel, int64_t row) {
    kernel(factors, row, static_cast<char*>(out) + row * outputs * size, out_float, outputs, block * PACK);
  };
  int64_t row = 0;
  for (; row + 8 <= count; row += 8) run(rows<8>, row);
  if (count - row >= 4) run(rows<4>, row), row += 4;
  if (count - row >= 2) run(rows<2>, row), row += 2;
  if (count - row == 1) run(rows<1>, row);
}

}  // namespace joust
#endif
