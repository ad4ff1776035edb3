#include <cmath>
#include <limits>

#include "cuda/launch.cuh"
#include "cuda/linear_cross_entropy.cuh"

namespace titer::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarp = 32;

template <typename T>
constexpr T kInfinity = std::numeric_limits<T>::infinity();
template <typename T>
constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();

__device__ float convert(float x, float) { return x; }
__device__ double convert(double x, double) { return x; }
__device__ __nv_bfloat16 convert(float x, __nv_bfloat16) { return __float2bfloat16_rn(x); }
__device__ __half convert(float x, __half) { return __float2half_rn(x); }

template <typename T>
struct Maximum {
  T value;
  int64_t token;
};

// The larger value, the lower token if equal. NaN never gets here.
template <typename T>
__device__ Maximum<T> larger(Maximum<T> a, Maximum<T> b) {
  return b.value > a.value || (b.value == a.value && b.token < a.token) ? b : a;
}

template <typename T>
__device__ Maximum<T> block_maximum(Maximum<T> x) {
  __shared__ T values[kThreads / kWarp];
  __shared__ int64_t tokens[kThreads / kWarp];
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    x = larger(x, {__shfl_down_sync(0xFFFFFFFF, x.value, offset), __shfl_down_sync(0xFFFFFFFF, x.token, offset)});
  }
  if (threadIdx.x % kWarp == 0) {
    values[threadIdx.x / kWarp] = x.value;
    tokens[threadIdx.x / kWarp] = x.token;
  }
  __syncthreads();
  x = {values[0], tokens[0]};
  for (int w = 1; w < kThreads / kWarp; ++w) x = larger(x, {values[w], tokens[w]});
  return x;
}

template <typename T>
__device__ T block_sum(T x) {
  __shared__ T sums[kThreads / kWarp];
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_down_sync(0xFFFFFFFF, x, offset);
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = x;
  __syncthreads();
  x = sums[0];
  for (int w = 1; w < kThreads / kWarp; ++w) x += sums[w];
  return x;
}

template <typename T>
__global__ void start_kernel(const int64_t* target, int64_t num_rows, OnlineSoftmax<T> state) {
  const int64_t r = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (r >= num_rows) return;
  state.max[r] = -kInfinity<T>;
  state.sum[r] = 0;
  state.argmax[r] = target[r] == 0 ? 1 : 0;
  state.target_logit[r] = kNaN<T>;
}

template <typename T, typename W>
__global__ void update_kernel(const T* logits, int64_t num_tokens, int64_t first_token, const int64_t* target,
                              OnlineSoftmax<T> state, W* weights) {
  const int64_t r = blockIdx.x;
  const T* const row = logits + r * num_tokens;
  const int64_t own = target[r] - first_token;

  // Starts from what earlier tiles found: their token is lower, so it also wins ties.
  const Maximum<T> old{state.max[r], state.argmax[r]};
  Maximum<T> found = old;
  for (int64_t j = threadIdx.x; j < num_tokens; j += kThreads) {
    const T x = row[j];
    if (j != own && x > found.value) found = {x, first_token + j};
  }
  found = block_maximum(found);
  if (threadIdx.x == 0 && own >= 0 && own < num_tokens) state.target_logit[r] = row[own];

  // -inf - (-inf) would be NaN: while everything so far is -inf, shift by 0 instead.
  const T shift = found.value == -kInfinity<T> ? T(0) : found.value;
  T sum = 0;
  __syncthreads();  // the target's logit is read before weights, which may be the tile, overwrite it
  for (int64_t j = threadIdx.x; j < num_tokens; j += kThreads) {
    const T x = j == own ? T(0) : exp(row[j] - shift);
    sum += x;
    if (weights != nullptr) weights[r * num_tokens + j] = convert(x, W());
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) {
    const T rescale = exp(old.value - shift);
    state.max[r] = found.value;
    state.argmax[r] = found.token;
    state.sum[r] = state.sum[r] * rescale + sum;
    state.rescale[r] = rescale;
  }
}

// Double, and the target last, so that a loss keeps its relative accuracy down to the smallest numbers.
template <typename T>
__global__ void finish_kernel(const int64_t* target, int64_t num_rows, OnlineSoftmax<T> state, RowResults<T> results) {
  const int64_t r = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (r >= num_rows) return;
  const double max = state.max[r];
  const double target_logit = state.target_logit[r];
  const double lse_others = (max == -kInfinity<double> ? 0 : max) + log(static_cast<double>(state.sum[r]));
  const double lead = target_logit - lse_others;
  // NaN if a logit is NaN or +inf or all are -inf; only +inf at the target would look like a loss of 0.
  const bool valid = !isnan(lead) && target_logit < kInfinity<double>;
  const double tail = log1p(exp(-fabs(lead)));
  const double lse = valid ? fmax(target_logit, lse_others) + tail : kNaN<double>;
  results.loss[r] = static_cast<T>(valid ? tail + fmax(-lead, 0.0) : kNaN<double>);
  results.lse[r] = static_cast<T>(lse);
  results.best_other[r] = static_cast<T>(valid ? max : kNaN<double>);
  results.best_other_index[r] = state.argmax[r];
  results.match[r] = valid && (target_logit > max || (target_logit == max && target[r] < state.argmax[r]));
  state.rescale[r] = static_cast<T>(exp(max - lse));
}

template <typename T, typename W>
__global__ void gradient_kernel(const T* logits, int64_t num_tokens, int64_t first_token, const int64_t* target,
                                const int64_t* best_other_index, const T* lse, RowGrads<T> grads, W* gradient) {
  const int64_t r = blockIdx.x;
  const int64_t own = target[r] - first_token, other = best_other_index[r] - first_token;
  const T shift = lse[r], scale = grads.softmax[r];
  for (int64_t j = threadIdx.x; j < num_tokens; j += kThreads) {
    T x = scale * exp(logits[r * num_tokens + j] - shift);
    if (j == own) x -= grads.loss[r];
    if (j == other) x += grads.best_other[r];
    gradient[r * num_tokens + j] = convert(x, W());
  }
}

unsigned blocks_of_rows(int64_t num_rows) { return static_cast<unsigned>((num_rows + kThreads - 1) / kThreads); }

}  // namespace

template <typename T>
cudaError_t start_online_softmax(const int64_t* target, int64_t num_rows, OnlineSoftmax<T> state, cudaStream_t stream) {
  return launch(start_kernel<T>, {blocks_of_rows(num_rows), kThreads, stream}, target, num_rows, state);
}

template <typename T, typename W>
cudaError_t update_online_softmax(const T* logits, int64_t num_rows, int64_t num_tokens, int64_t first_token,
                                  const int64_t* target, OnlineSoftmax<T> state, W* weights, cudaStream_t stream) {
  return launch(update_kernel<T, W>, {static_cast<unsigned>(num_rows), kThreads, stream}, logits, num_tokens,
                first_token, target, state, weights);
}

template <typename T>
cudaError_t finish_online_softmax(const int64_t* target, int64_t num_rows, OnlineSoftmax<T> state,
                                  RowResults<T> results, cudaStream_t stream) {
  return launch(finish_kernel<T>, {blocks_of_rows(num_rows), kThreads, stream}, target, num_rows, state, results);
}

template <typename T, typename W>
cudaError_t logits_gradient(const T* logits, int64_t num_rows, int64_t num_tokens, int64_t first_token,
                            const int64_t* target, const int64_t* best_other_index, const T* lse, RowGrads<T> grads,
                            W* gradient, cudaStream_t stream) {
  return launch(gradient_kernel<T, W>, {static_cast<unsigned>(num_rows), kThreads, stream}, logits, num_tokens,
                first_token, target, best_other_index, lse, grads, gradient);
}

#define TITER_INSTANTIATE_SUM(T)                                                                      \
  template cudaError_t start_online_softmax(const int64_t*, int64_t, OnlineSoftmax<T>, cudaStream_t); \
  template cudaError_t finish_online_softmax(const int64_t*, int64_t, OnlineSoftmax<T>, RowResults<T>, cudaStream_t);
#define TITER_INSTANTIATE_TILE(T, W)                                                                                  \
  template cudaError_t update_online_softmax(const T*, int64_t, int64_t, int64_t, const int64_t*, OnlineSoftmax<T>,   \
                                             W*, cudaStream_t);                                                       \
  template cudaError_t logits_gradient(const T*, int64_t, int64_t, int64_t, const int64_t*, const int64_t*, const T*, \
                                       RowGrads<T>, W*, cudaStream_t);
TITER_INSTANTIATE_SUM(float)
TITER_INSTANTIATE_SUM(double)
TITER_INSTANTIATE_TILE(float, float)
TITER_INSTANTIATE_TILE(float, __nv_bfloat16)
TITER_INSTANTIATE_TILE(float, __half)
TITER_INSTANTIATE_TILE(double, double)

}  // namespace titer::cuda
