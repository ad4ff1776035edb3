// CPU backend of linear. Where few rows of x meet a weight, the time goes into reading the weight: it is the left
// matrix and stays where it lies, and x, which is small, is packed. Where there are many, each thread packs a share of
// the weight that its L2 cache holds, and takes the rows of x through it.
#include "linear.h"

#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>

#include "cpu/amx_product.h"
#include "cpu/block_operands.h"

namespace titer::cpu {
namespace {

constexpr int64_t kFewRows = 64;
constexpr int64_t kPackedBytes = int64_t{1} << 20;  // of the weight; half the L2 cache of processors with AMX

bool suits_amx(const LinearInputs& inputs) {
  const auto& [x, weight, bias, residual] = inputs;
  const int64_t inner = x.size(1);
  return x.scalar_type() == at::kBFloat16 && has_amx() && inner > 0 && inner % kAmxBlock == 0 &&
         weight.size(0) >= kAmxBlock && weight.stride(1) == 1;
}

const uint16_t* bits(const at::Tensor& x) { return static_cast<const uint16_t*>(x.const_data_ptr()); }

BFloat16Rows rows_of(const at::Tensor& x) { return {bits(x), x.stride(0), x.size(0), x.size(1)}; }

class AmxLinear {
 public:
  AmxLinear(const LinearInputs& inputs, const at::Tensor& out)
      : x_(rows_of(inputs.x)),
        weight_(rows_of(inputs.weight)),
        bias_(inputs.bias ? inputs.bias->contiguous() : at::Tensor()),
        to_{inputs.bias ? bits(bias_) : nullptr, inputs.residual ? bits(*inputs.residual) : nullptr,
            inputs.residual ? inputs.residual->stride(0) : 0, static_cast<uint16_t*>(out.mutable_data_ptr()),
            out.stride(0)} {}

  void run() const {
    if (x_.count <= kFewRows) {
      run_few_rows();
    } else {
      run_many_rows();
    }
  }

 private:
  void run_few_rows() const {
    const at::Tensor packed = packed_rows(x_.count);
    auto* const right = static_cast<uint16_t*>(packed.mutable_data_ptr());
    amx_pack(x_, x_.count, right);
    constexpr int64_t kGrainElements = 65536;  // of the weight: fewer are read before a second thread has woken up
    at::parallel_for(0, ceil_div(weight_.count, kAmxBlock), ceil_div(kGrainElements, kAmxBlock * weight_.inner),
                     [&](int64_t begin, int64_t end) {
                       const AmxScope scope;
                       amx_multiply(AmxLeft::kWeights, weight_, begin * kAmxBlock,
                                    std::min(end * kAmxBlock, weight_.count), right, x_.count, to_);
                     });
  }

  void run_many_rows() const {
    const int64_t threads = at::get_num_threads();
    const int64_t cached = kPackedBytes / static_cast<int64_t>(sizeof(uint16_t)) / weight_.inner;
    const int64_t share = std::min(ceil_div(weight_.count, threads), std::max(cached, kAmxBlock));
    const int64_t outputs = round_up(share, kAmxBlock), output_items = ceil_div(weight_.count, outputs);
    // Fewer rows than these would not be worth packing the weight for.
    const int64_t rows =
        std::max(round_up(ceil_div(x_.count, std::max<int64_t>(1, threads / output_items)), kAmxBlock), kFewRows);
    const int64_t row_items = ceil_div(x_.count, rows);
    at::parallel_for(0, output_items * row_items, 1, [&](int64_t begin, int64_t end) {
      const AmxScope scope;
      const at::Tensor packed = packed_rows(outputs);
      auto* const right = static_cast<uint16_t*>(packed.mutable_data_ptr());
      for (int64_t item = begin; item < end; ++item) {
        const int64_t output = item / row_items * outputs, row = item % row_items * rows;
        const int64_t count = std::min(outputs, weight_.count - output);
        if (item == begin || row == 0) amx_pack(weight_.from(output), count, right);
        amx_multiply(AmxLeft::kInputs, x_, row, std::min(row + rows, x_.count), right, count, to_.at(0, output));
      }
    });
  }

  at::Tensor packed_rows(int64_t count) const {
    return empty_buffer<c10::BFloat16>(amx_packed_size(count, weight_.inner));
  }

  BFloat16Rows x_, weight_;
  at::Tensor bias_;
  LinearOutput to_;
};

at::Tensor& linear_out_cpu(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                           const std::optional<at::Tensor>& residual, at::Tensor& out) {
  const LinearInputs inputs{x, weight, bias, residual};
  check_linear(inputs, out);
  if (out.numel() == 0) return out;
  if (suits_amx(inputs)) {
    AmxLinear(inputs, out).run();
  } else {
    linear_composed(inputs, out);
  }
  return out;
}

}  // namespace
}  // namespace titer::cpu

TORCH_LIBRARY_IMPL(titer, CPU, m) { m.impl("linear.out", titer::cpu::linear_out_cpu); }
