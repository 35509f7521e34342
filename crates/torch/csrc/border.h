// What every C function of this crate shares: errors as strings, tensors as pointers, loops cut into rows.
#pragma once
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <cstring>

#include "kernels.h"

namespace joust {

// The table for this CPU, chosen once.
const Table& table();

// Runs `body` and turns an exception into a string that the caller frees; none may cross the C border.
template <class F> char* guarded(F body) {
  try {
    body();
    return nullptr;
  } catch (const std::exception& error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("unknown C++ exception");
  }
}

template <class T> struct Type { using type = T; };

// Calls `body(kernels, Type<T>)` with the kernels of the tensor's kind.
template <class F> void by_kind(const at::Tensor& tensor, F body) {
  switch (tensor.scalar_type()) {
    case at::kFloat: return body(table().f32, Type<float>{});
    case at::kBFloat16: return body(table().b16, Type<bf16>{});
    case at::kDouble: return body(table().f64, Type<double>{});
    default: TORCH_CHECK(false, "expected float32, bfloat16 or float64, got ", tensor.scalar_type());
  }
}

template <class T> const T* read(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<const T*>(tensor.const_data_ptr()) : nullptr;
}

template <class T> T* write(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<T*>(tensor.mutable_data_ptr()) : nullptr;
}

// Kind of sums over elements of this tensor.
inline at::ScalarType sum_kind(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// Rows of a task, about 32 768 elements each: smaller ones cost more to hand out than to run.
inline int64_t grain(int64_t width) { return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, width)); }

}  // namespace joust
