// Sequences of several runs, packed row behind row for one pass forward and back.
#pragma once

#include <ATen/core/Tensor.h>
#include <titer/core/training_data.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace titer {

/// One sequence of a run's step.
struct BatchItem {
  int64_t run = 0;
  int64_t step = 0;  ///< of the run
  int64_t item = 0;  ///< in the run's step: with the step, names its random draws
  const TrainingSequence* sequence = nullptr;
};

/// Rows behind the last one that predicts an answer are left out: nothing depends on them.
struct TrainingBatch {
  /// @param items  by run; at least one
  TrainingBatch(const std::vector<BatchItem>& items, at::Device device);

  /// Rows of a sequence that take part.
  static int64_t rows_of(const TrainingSequence& sequence) { return sequence.answers.back().end - 1; }

  /// Runs from the first to the last one that has an item; K of them below, some perhaps without rows.
  int64_t num_runs() const { return static_cast<int64_t>(answer_tokens.size()); }

  /// [K] int64 on the CPU: how many of these rows are each run's; `num_rows` is that of all, or of the wanted ones.
  const at::Tensor& rows_of_runs(int64_t num_rows) const;

  std::vector<BatchItem> items;
  int64_t first_run;
  std::vector<int64_t> lengths;           ///< rows of each item
  std::vector<int64_t> sequence_lengths;  ///< and its tokens, which some ropes depend on
  at::Tensor ids;                         ///< [N] int64
  at::Tensor positions;                   ///< [N] int64
  at::Tensor all_rows;                    ///< [K]
  /// The last layer computes only the last `queries` rows of every item, `wanted` [M] int64; all where undefined.
  at::Tensor wanted;
  std::optional<int64_t> queries;
  at::Tensor wanted_rows;              ///< [K], where `wanted` is defined
  at::Tensor predicting;               ///< [R] int64, of the wanted rows: those that predict an answer's token
  at::Tensor targets;                  ///< [R] int64, the tokens
  std::vector<int64_t> answer_tokens;  ///< [K], R in all
};

}  // namespace titer
