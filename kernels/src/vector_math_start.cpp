// MKL's vector math, which torch computes exp, cos and their kin with, looks at the processor when it is first called.
// Where two threads do so at once after a matrix product, some results may come from a variant of half the accuracy:
// errors of 1e-4 in float32 and 3e-9 in float64, in 1 of 20 processes with torch 2.11. So one thread calls it, when the
// library is loaded.
#include <ATen/ops/exp.h>
#include <ATen/ops/ones.h>

namespace titer {
namespace {

[[maybe_unused]] const at::Tensor first_result = at::exp(at::ones({1}));

}  // namespace
}  // namespace titer
