#include "training/run_parameters.h"

#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <functional>
#include <numeric>

namespace titer {
namespace {

int64_t size_of(const ParameterShape& parameter) {
  return std::accumulate(parameter.shape.begin(), parameter.shape.end(), int64_t{1}, std::multiplies<>());
}

}  // namespace

RunParameters::RunParameters(int64_t num_runs, std::vector<ParameterShape> shapes, const at::TensorOptions& options)
    : num_runs_(num_runs), shapes_(std::move(shapes)) {
  int64_t total = 0;
  for (const ParameterShape& parameter : shapes_) total += num_runs * size_of(parameter);
  values_ = at::zeros({total}, options);
  gradients_ = at::zeros_like(values_);
  int64_t first = 0;
  for (const ParameterShape& parameter : shapes_) {
    std::vector<int64_t> shape = parameter.shape;
    shape.insert(shape.begin(), num_runs);
    const int64_t size = num_runs * size_of(parameter);
    const auto part = [&](const at::Tensor& all) { return all.narrow(0, first, size).view(shape); };
    stacked_.emplace(parameter.name, Stacked{part(values_), part(gradients_)});
    first += size;
  }
}

at::Tensor RunParameters::leaf(const std::string& name, int64_t first_run, int64_t count) const {
  const auto& [values, gradients] = stacked_.at(name);
  const at::Tensor out = values.narrow(0, first_run, count).detach().requires_grad_(true);
  out.mutable_grad() = gradients.narrow(0, first_run, count);
  return out;
}

std::vector<at::Tensor> RunParameters::of_run(const at::Tensor& all, int64_t run) const {
  std::vector<at::Tensor> out;
  int64_t first = 0;
  for (const ParameterShape& parameter : shapes_) {
    const int64_t size = size_of(parameter);
    out.push_back(all.narrow(0, first + run * size, size).view(parameter.shape));
    first += num_runs_ * size;
  }
  return out;
}

}  // namespace titer
