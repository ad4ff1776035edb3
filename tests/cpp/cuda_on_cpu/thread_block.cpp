#include "thread_block.h"

#include <algorithm>
#include <bit>

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "fiber.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace titer::cuda_on_cpu {
namespace {

constexpr unsigned kMaxThreads = 1024;
constexpr unsigned kPlacesInWord = 64;
constexpr unsigned kMaxBlocksYZ = 65535;
constexpr size_t kMaxSharedBytes = 163 * 1024;
constexpr std::byte kUnwritten{0xFF};  // NaN in every floating-point type

enum class State { kRuns, kWaitsForBlock, kWaitsForWarp, kEnded };

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};

struct Thread {
  Fiber fiber;
  bool is_reusable = false;  ///< its fiber waits for the next kernel
  State state = State::kRuns;
  std::source_location where;
  unsigned mask = 0;
  void* operand = nullptr;
  std::vector<Copy> copies;
};

std::string text(const std::source_location& where) {
  const std::string file = where.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(where.line()) + " (" + where.function_name() + ")";
}

bool is_same(const std::source_location& a, const std::source_location& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

/// The block that runs. Its threads are made once and run one kernel after the other.
class Block {
 public:
  void set_seed(uint64_t seed) {
    seed_ = seed;
    launches_ = 0;
  }

  cudaError_t run(const Launch& launch, const std::function<void()>& kernel);
  void wait_for_block(std::source_location where);
  void wait_for_warp(unsigned mask, void* operand, void (*operation)(const WarpOperands&), std::source_location where);
  void copy_later(const Copy& copy);
  void finish_copies();
  [[noreturn]] void stop(const char* reason, std::source_location where);
  std::byte* shared_memory() { return shared_memory_.data(); }

 private:
  static void thread_body();
  void run_block();
  void make_all_ready();
  void make_ready(unsigned thread);
  void run_next(Fiber& from);
  std::string name() const;
  std::string describe() const;

  uint64_t seed_ = 0, launches_ = 0;
  std::mt19937_64 random_;
  Fiber caller_;
  std::vector<std::unique_ptr<Thread>> threads_;
  unsigned num_threads_ = 0, ended_ = 0, at_barrier_ = 0;
  std::vector<unsigned> order_;                                ///< who goes first among those who are ready
  std::array<unsigned, kMaxThreads> place_{};                  ///< of each thread in order_
  std::array<uint64_t, kMaxThreads / kPlacesInWord> ready_{};  ///< a bit for each place
  std::array<unsigned, kMaxThreads / kWarp> waiting_lanes_{};
  const std::function<void()>* kernel_ = nullptr;
  std::source_location launched_;
  std::string error_;
  std::vector<std::byte> shared_memory_;
};

Block block;

void Block::thread_body() {
  while (true) {
    (*block.kernel_)();
    Thread& self = *block.threads_[threadIdx.x];
    self.state = State::kEnded;
    self.is_reusable = true;
    ++block.ended_;
    block.run_next(self.fiber);
    self.is_reusable = false;
  }
}

// Draws the order anew. It then holds until the next barrier: the last thread starts when all others wait, so that
// somebody is always as late as can be. Drawing at every step would keep all of them about equally far.
void Block::make_all_ready() {
  order_.resize(num_threads_);
  std::iota(order_.begin(), order_.end(), 0);
  std::shuffle(order_.begin(), order_.end(), random_);
  for (unsigned place = 0; place < num_threads_; ++place) {
    place_[order_[place]] = place;
    make_ready(order_[place]);
  }
}

void Block::make_ready(unsigned thread) {
  threads_[thread]->state = State::kRuns;
  ready_[place_[thread] / kPlacesInWord] |= uint64_t{1} << place_[thread] % kPlacesInWord;
}

// The first who is ready goes on; if there is nobody, the block has ended, or is stuck.
void Block::run_next(Fiber& from) {
  const auto word = std::find_if(ready_.begin(), ready_.end(), [](uint64_t places) { return places != 0; });
  if (word == ready_.end()) return from.switch_to(caller_);
  const auto place = static_cast<size_t>(word - ready_.begin()) * kPlacesInWord + std::countr_zero(*word);
  *word &= *word - 1;
  threadIdx.x = order_[place];
  Fiber& next = threads_[threadIdx.x]->fiber;
  if (&next != &from) from.switch_to(next);
}

void Block::wait_for_block(std::source_location where) {
  Thread& self = *threads_[threadIdx.x];
  self.state = State::kWaitsForBlock;
  self.where = where;
  if (++at_barrier_ == num_threads_) {
    const auto is_here = [&](const auto& thread) { return is_same(thread->where, where); };
    if (std::all_of(threads_.begin(), threads_.begin() + num_threads_, is_here)) {
      at_barrier_ = 0;
      make_all_ready();
    }
  }
  run_next(self.fiber);
}

void Block::wait_for_warp(unsigned mask, void* operand, void (*operation)(const WarpOperands&),
                          std::source_location where) {
  Thread& self = *threads_[threadIdx.x];
  self.state = State::kWaitsForWarp;
  self.where = where;
  self.mask = mask;
  self.operand = operand;
  if ((mask >> threadIdx.x % kWarp & 1) == 0) stop("the mask leaves out the lane that calls", where);
  const unsigned first = threadIdx.x / kWarp * kWarp;
  unsigned& waiting = waiting_lanes_[threadIdx.x / kWarp];
  waiting |= 1U << threadIdx.x % kWarp;
  bool is_complete = (waiting & mask) == mask;
  WarpOperands operands{};
  for (unsigned lane = 0; lane < kWarp && is_complete; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    const Thread& other = *threads_[first + lane];
    is_complete = other.mask == mask && is_same(other.where, where);
    operands[lane] = other.operand;
  }
  if (is_complete) {
    operation(operands);
    waiting &= ~mask;
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      if ((mask >> lane & 1) != 0) make_ready(first + lane);
    }
  }
  run_next(self.fiber);
}

void Block::copy_later(const Copy& copy) {
  if (random_() % 2 == 0) {
    std::memcpy(copy.to, copy.from, copy.bytes);
  } else {
    threads_[threadIdx.x]->copies.push_back(copy);
  }
}

void Block::finish_copies() {
  std::vector<Copy>& copies = threads_[threadIdx.x]->copies;
  for (const Copy& copy : copies) std::memcpy(copy.to, copy.from, copy.bytes);
  copies.clear();
}

void Block::stop(const char* reason, std::source_location where) {
  error_ = name() + ", thread " + std::to_string(threadIdx.x) + ": " + reason + " at " + text(where);
  threads_[threadIdx.x]->fiber.switch_to(caller_);
  std::abort();  // nobody switches back
}

std::string Block::name() const {
  return "[cuda_on_cpu] the kernel launched at " + text(launched_) + ", block (" + std::to_string(blockIdx.x) + ", " +
         std::to_string(blockIdx.y) + ", " + std::to_string(blockIdx.z) + ")";
}

std::string Block::describe() const {
  std::map<std::string, unsigned> counts;
  for (unsigned i = 0; i < num_threads_; ++i) {
    const Thread& thread = *threads_[i];
    switch (thread.state) {
      case State::kWaitsForBlock:
        ++counts["wait for their block at " + text(thread.where)];
        break;
      case State::kWaitsForWarp:
        ++counts["wait for lanes of their warp at " + text(thread.where)];
        break;
      default:
        ++counts["have ended"];
    }
  }
  std::string result = name() + ", waits forever:";
  for (const auto& [what, count] : counts) result += "\n  " + std::to_string(count) + " threads " + what;
  return result;
}

void Block::run_block() {
  std::fill(shared_memory_.begin(), shared_memory_.end(), kUnwritten);
  ended_ = at_barrier_ = 0;
  ready_.fill(0);
  waiting_lanes_.fill(0);
  for (unsigned i = 0; i < num_threads_; ++i) {
    threads_[i]->copies.clear();
  }
  make_all_ready();
  run_next(caller_);
  if (!error_.empty()) throw std::runtime_error(std::exchange(error_, {}));
  if (ended_ != num_threads_) throw std::runtime_error(describe());
}

cudaError_t Block::run(const Launch& launch, const std::function<void()>& kernel) {
  const auto& [blocks, threads, shared_bytes, where] = launch;
  if (threads == 0 || threads > kMaxThreads || blocks.x == 0 || blocks.x > INT32_MAX || blocks.y == 0 ||
      blocks.y > kMaxBlocksYZ || blocks.z == 0 || blocks.z > kMaxBlocksYZ) {
    return cudaErrorInvalidConfiguration;
  }
  if (shared_bytes > kMaxSharedBytes) return cudaErrorInvalidValue;
  random_.seed(seed_ + launches_++);
  kernel_ = &kernel;
  launched_ = where;
  num_threads_ = threads;
  shared_memory_ = std::vector<std::byte>(shared_bytes);
  while (threads_.size() < threads) threads_.push_back(std::make_unique<Thread>());
  for (unsigned i = 0; i < threads; ++i) {
    if (!threads_[i]->is_reusable) threads_[i]->fiber.start(thread_body);
  }

  gridDim = blocks;
  blockDim = dim3(threads);
  std::vector<uint64_t> order(uint64_t{blocks.x} * blocks.y * blocks.z);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random_);
  for (const uint64_t i : order) {
    blockIdx = {static_cast<unsigned>(i % blocks.x), static_cast<unsigned>(i / blocks.x % blocks.y),
                static_cast<unsigned>(i / blocks.x / blocks.y)};
    run_block();
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t run_grid(const Launch& launch, const std::function<void()>& thread) { return block.run(launch, thread); }

void draw_order_from(uint64_t seed) { block.set_seed(seed); }

std::byte* shared_memory() { return block.shared_memory(); }

void copy_later(void* to, const void* from, size_t bytes) { block.copy_later({to, from, bytes}); }

void finish_copies() { block.finish_copies(); }

void stop(const char* reason, std::source_location where) { block.stop(reason, where); }

void wait_for_block(std::source_location where) { block.wait_for_block(where); }

void wait_for_warp(unsigned mask, void* operand, void (*operation)(const WarpOperands&), std::source_location where) {
  block.wait_for_warp(mask, operand, operation, where);
}

}  // namespace titer::cuda_on_cpu
