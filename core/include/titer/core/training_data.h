// What a model learns from, as token ids.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace titer {

/// Token ids of which the answers are learned: the loss is that of predicting these, given all before them.
struct TrainingSequence {
  struct Span {
    int64_t begin = 0;
    int64_t end = 0;
  };
  std::vector<int64_t> ids;
  std::vector<Span> answers;  ///< of `ids`, in order, none empty, the first behind the first token
};

/// Shared, because runs that are compared often learn from the same.
using TrainingData = std::shared_ptr<const std::vector<TrainingSequence>>;

}  // namespace titer
