#include "training/training_batch.h"

#include <ATen/ops/tensor.h>

#include <algorithm>

namespace titer {
namespace {

/// Rows of a sequence from the first one that predicts an answer on.
int64_t learned_rows(const TrainingSequence& sequence) {
  return TrainingBatch::rows_of(sequence) - (sequence.answers.front().begin - 1);
}

}  // namespace

TrainingBatch::TrainingBatch(const std::vector<BatchItem>& batch_items, at::Device device)
    : items(batch_items),
      first_run(items.front().run),
      answer_tokens(static_cast<size_t>(items.back().run - first_run + 1)) {
  int64_t most_learned = 0;
  for (const BatchItem& item : items) {
    lengths.push_back(rows_of(*item.sequence));
    sequence_lengths.push_back(static_cast<int64_t>(item.sequence->ids.size()));
    most_learned = std::max(most_learned, learned_rows(*item.sequence));
  }
  // One number for all, so that a short sequence among long answers has every row computed everywhere.
  if (most_learned <= *std::min_element(lengths.begin(), lengths.end())) queries = most_learned;

  std::vector<int64_t> id, position, run_rows(answer_tokens.size()), wanted_row, run_wanted(answer_tokens.size()),
      predict, target;
  for (size_t i = 0; i < items.size(); ++i) {
    const TrainingSequence& sequence = *items[i].sequence;
    const auto run = static_cast<size_t>(items[i].run - first_run);
    const auto first = static_cast<int64_t>(id.size());
    for (int64_t p = 0; p < lengths[i]; ++p) {
      id.push_back(sequence.ids[static_cast<size_t>(p)]);
      position.push_back(p);
    }
    run_rows[run] += lengths[i];
    const int64_t skipped = queries ? lengths[i] - *queries : 0;
    const auto first_wanted = queries ? static_cast<int64_t>(wanted_row.size()) : first;
    if (queries) {
      for (int64_t p = skipped; p < lengths[i]; ++p) wanted_row.push_back(first + p);
      run_wanted[run] += *queries;
    }
    for (const TrainingSequence::Span& answer : sequence.answers) {
      for (int64_t t = answer.begin; t < answer.end; ++t) {
        predict.push_back(first_wanted + t - 1 - skipped);
        target.push_back(sequence.ids[static_cast<size_t>(t)]);
      }
      answer_tokens[run] += answer.end - answer.begin;
    }
  }
  const auto on_device = [&](const std::vector<int64_t>& values) { return at::tensor(values, at::kLong).to(device); };
  ids = on_device(id);
  positions = on_device(position);
  all_rows = at::tensor(run_rows, at::kLong);
  if (queries) {
    wanted = on_device(wanted_row);
    wanted_rows = at::tensor(run_wanted, at::kLong);
  }
  predicting = on_device(predict);
  targets = on_device(target);
}

const at::Tensor& TrainingBatch::rows_of_runs(int64_t num_rows) const {
  if (num_rows == ids.size(0)) return all_rows;
  TORCH_INTERNAL_ASSERT(wanted.defined() && num_rows == wanted.size(0));
  return wanted_rows;
}

}  // namespace titer
