#include "training/data_order.h"

#include <titer/core/philox.h>

#include <algorithm>
#include <numeric>
#include <utility>

namespace titer {

DataOrder::DataOrder(const FinetuneOptions& options, int64_t size)
    : options_(options),
      size_(size),
      steps_of_epoch_((size - 1) / options.batch_size + 1),
      num_steps_(options.max_steps.value_or(options.num_epochs * steps_of_epoch_)) {}

std::vector<int64_t> DataOrder::sequences(int64_t step) {
  if (step / steps_of_epoch_ != epoch_) shuffle(step / steps_of_epoch_);
  const int64_t first = step % steps_of_epoch_ * options_.batch_size;
  return {order_.begin() + first, order_.begin() + first + std::min(options_.batch_size, size_ - first)};
}

void DataOrder::shuffle(int64_t epoch) {
  epoch_ = epoch;
  order_.resize(static_cast<size_t>(size_));
  std::iota(order_.begin(), order_.end(), 0);
  if (!options_.shuffle) return;
  Philox random(static_cast<uint64_t>(options_.seed), RandomPurpose::kDataOrder, static_cast<uint32_t>(epoch), 0);
  for (size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[random.below(i)]);  // Fisher-Yates
}

}  // namespace titer
