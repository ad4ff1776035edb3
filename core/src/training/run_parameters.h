// The trainable numbers of K runs and their gradients.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace titer {

/// Optimizers treat these differently.
enum class ParameterKind {
  kMatrix,     ///< maps hidden states to hidden states
  kEmbedding,  ///< a row for each token or position
  kVector,     ///< norms and biases: no weight decay
};

struct ParameterShape {
  std::string name;
  std::vector<int64_t> shape;  ///< of one run
  ParameterKind kind = ParameterKind::kMatrix;
};

class RunParameters {
 public:
  /// Zeros.
  RunParameters(int64_t num_runs, std::vector<ParameterShape> shapes, const at::TensorOptions& options);

  int64_t num_runs() const { return num_runs_; }
  const std::vector<ParameterShape>& shapes() const { return shapes_; }

  /// [K, shape...], without a gradient.
  const at::Tensor& operator[](const std::string& name) const { return stacked_.at(name).values; }

  /// [count, shape...] of some runs: a leaf to which backward passes add in place, in gradients().
  at::Tensor leaf(const std::string& name, int64_t first_run, int64_t count) const;

  /// All numbers [N], parameter by parameter and in each run by run; and their gradients.
  const at::Tensor& values() const { return values_; }
  const at::Tensor& gradients() const { return gradients_; }

  /// Views of what belongs to a run in a tensor [N] laid out like values(), one for each of shapes().
  std::vector<at::Tensor> of_run(const at::Tensor& all, int64_t run) const;

 private:
  int64_t num_runs_;
  std::vector<ParameterShape> shapes_;
  struct Stacked {
    at::Tensor values, gradients;
  };
  std::map<std::string, Stacked> stacked_;  // [K, shape...] by name
  at::Tensor values_, gradients_;
};

}  // namespace titer
