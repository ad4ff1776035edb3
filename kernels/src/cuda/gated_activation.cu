#include <algorithm>

#include "cuda/gated_activation.cuh"
#include "cuda/launch.cuh"
#include "cuda/vector_access.cuh"

namespace titer::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocksY = 65535;

// An activation f and its derivative f'.
template <typename W>
struct Activated {
  W value;
  W derivative;
};

// x times the logistic function of z, whose derivative is `slope`.
template <typename W>
__device__ Activated<W> times_logistic(W x, W z, W slope) {
  const W s = 1 / (1 + exp(-z)), rest = 1 / (1 + exp(z));
  return {x * s, s + x * s * rest * slope};
}

template <Gate kGate, typename W>
__device__ Activated<W> activate(W x) {
  if constexpr (kGate == Gate::kSilu) {
    return times_logistic(x, x, W(1));
  } else if constexpr (kGate == Gate::kGeluTanh) {
    constexpr W kLinear = static_cast<W>(1.5957691216057308);  // 2 sqrt(2 / pi): (1 + tanh(u)) / 2 is s(2u)
    constexpr W kCubic = static_cast<W>(0.044715) * kLinear;
    return times_logistic(x, x * (kLinear + kCubic * x * x), kLinear + 3 * kCubic * x * x);
  } else {
    const W share = static_cast<W>(0.5) * erfc(-x * static_cast<W>(0.7071067811865476));
    return {x * share, share + x * static_cast<W>(0.3989422804014327) * exp(static_cast<W>(-0.5) * x * x)};
  }
}

// Both kernels: a thread takes kCount elements of a row; blocks walk the rows.
template <Gate kGate, typename T, int kCount>
__global__ void forward_kernel(GatedRows<T> rows) {
  using Elements = Vector<T, kCount>;
  const int64_t i = (blockIdx.x * int64_t{kThreads} + threadIdx.x) * kCount;
  if (i >= rows.width) return;
  for (int64_t r = blockIdx.y; r < rows.rows; r += gridDim.y) {
    const auto gate = *reinterpret_cast<const Elements*>(rows.gate + r * rows.gate_stride + i);
    const auto up = *reinterpret_cast<const Elements*>(rows.up + r * rows.up_stride + i);
    Elements out;
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const T activated = narrow(activate<kGate>(widen(gate.at[j])).value, T());
      out.at[j] = narrow(widen(activated) * widen(up.at[j]), T());
    }
    *reinterpret_cast<Elements*>(rows.out + r * rows.out_stride + i) = out;
  }
}

template <Gate kGate, typename T, int kCount>
__global__ void backward_kernel(GatedGradRows<T> rows) {
  using Elements = Vector<T, kCount>;
  const int64_t i = (blockIdx.x * int64_t{kThreads} + threadIdx.x) * kCount;
  if (i >= rows.width) return;
  for (int64_t r = blockIdx.y; r < rows.rows; r += gridDim.y) {
    const auto grad = *reinterpret_cast<const Elements*>(rows.grad + r * rows.grad_stride + i);
    const auto gate = *reinterpret_cast<const Elements*>(rows.gate + r * rows.gate_stride + i);
    const auto up = *reinterpret_cast<const Elements*>(rows.up + r * rows.up_stride + i);
    Elements grad_gate, grad_up;
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const auto activated = activate<kGate>(widen(gate.at[j]));
      const auto g = widen(grad.at[j]);
      grad_gate.at[j] = narrow(g * widen(up.at[j]) * activated.derivative, T());
      grad_up.at[j] = narrow(g * activated.value, T());
    }
    *reinterpret_cast<Elements*>(rows.grad_gate + r * rows.width + i) = grad_gate;
    *reinterpret_cast<Elements*>(rows.grad_up + r * rows.width + i) = grad_up;
  }
}

template <typename T>
constexpr int kVector = static_cast<int>(kAccessBytes / static_cast<int64_t>(sizeof(T)));

dim3 blocks_for(int64_t rows, int64_t width, int count) {
  const int64_t per_block = int64_t{kThreads} * count;
  return {static_cast<unsigned>((width + per_block - 1) / per_block),
          static_cast<unsigned>(std::min(rows, kMaxBlocksY)), 1};
}

template <Gate kGate, typename T>
cudaError_t activate_rows(const GatedRows<T>& rows, cudaStream_t stream) {
  if (is_aligned(rows.gate, kAccessBytes) && is_aligned(rows.up, kAccessBytes) && is_aligned(rows.out, kAccessBytes) &&
      are_divisible({rows.width, rows.gate_stride, rows.up_stride, rows.out_stride}, kVector<T>)) {
    return launch(forward_kernel<kGate, T, kVector<T>>,
                  {blocks_for(rows.rows, rows.width, kVector<T>), kThreads, stream}, rows);
  }
  return launch(forward_kernel<kGate, T, 1>, {blocks_for(rows.rows, rows.width, 1), kThreads, stream}, rows);
}

template <Gate kGate, typename T>
cudaError_t activate_rows(const GatedGradRows<T>& rows, cudaStream_t stream) {
  if (is_aligned(rows.grad, kAccessBytes) && is_aligned(rows.gate, kAccessBytes) && is_aligned(rows.up, kAccessBytes) &&
      is_aligned(rows.grad_gate, kAccessBytes) && is_aligned(rows.grad_up, kAccessBytes) &&
      are_divisible({rows.width, rows.grad_stride, rows.gate_stride, rows.up_stride}, kVector<T>)) {
    return launch(backward_kernel<kGate, T, kVector<T>>,
                  {blocks_for(rows.rows, rows.width, kVector<T>), kThreads, stream}, rows);
  }
  return launch(backward_kernel<kGate, T, 1>, {blocks_for(rows.rows, rows.width, 1), kThreads, stream}, rows);
}

template <typename Rows>
cudaError_t activate_rows(const Rows& rows, Gate gate, cudaStream_t stream) {
  switch (gate) {
    case Gate::kSilu:
      return activate_rows<Gate::kSilu>(rows, stream);
    case Gate::kGelu:
      return activate_rows<Gate::kGelu>(rows, stream);
    default:
      return activate_rows<Gate::kGeluTanh>(rows, stream);
  }
}

}  // namespace

template <typename T>
cudaError_t gate_rows(const GatedRows<T>& rows, Gate gate, cudaStream_t stream) {
  return activate_rows(rows, gate, stream);
}

template <typename T>
cudaError_t gate_rows_backward(const GatedGradRows<T>& rows, Gate gate, cudaStream_t stream) {
  return activate_rows(rows, gate, stream);
}

#define TITER_INSTANTIATE(T)                                               \
  template cudaError_t gate_rows(const GatedRows<T>&, Gate, cudaStream_t); \
  template cudaError_t gate_rows_backward(const GatedGradRows<T>&, Gate, cudaStream_t);
TITER_INSTANTIATE(float)
TITER_INSTANTIATE(double)
TITER_INSTANTIATE(__nv_bfloat16)
TITER_INSTANTIATE(__half)

}  // namespace titer::cuda
