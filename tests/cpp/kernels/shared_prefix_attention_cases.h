// Shapes and layouts of shared_prefix_attention: one table for values and speed.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <titer/kernels/shared_prefix_attention.h>

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

namespace titer::test {

struct SharedPrefixCase {
  std::string name;
  std::vector<int64_t> rows, visible;
  int64_t prefix, kv_heads, group, head_dim;
  std::optional<int64_t> queries, window;
  std::optional<double> soft_cap;
  int64_t gap = 0;                      ///< elements between heads; then every other row is there for nothing, too
  std::vector<int64_t> first_row = {};  ///< of k and v, which then have 60 rows
};

inline std::ostream& operator<<(std::ostream& out, const SharedPrefixCase& c) { return out << c.name; }

struct SharedPrefixTensors {
  at::Tensor q, k, v, prefix_k, prefix_v, out;
  ops::SharedPrefixLayout layout;
};

inline std::vector<SharedPrefixCase> shared_prefix_cases() {
  return {
      {"no_continuation", {}, {}, 5, 2, 3, 8, {}, {}, {}},
      {"one_row", {1}, {0}, 0, 1, 1, 2, {}, {}, {}},
      {"no_prefix", {3, 7, 1}, {0, 0, 0}, 0, 2, 1, 16, {}, {}, {}},
      {"part_of_the_prefix", {4, 9, 5}, {11, 3, 0}, 13, 3, 3, 16, {}, {}, {}},
      {"sequences", {70, 33, 1, 64, 129}, {0, 0, 0, 0, 0}, 0, 2, 3, 64, {}, {}, {}},
      {"last_queries_of_sequences", {90, 40, 31}, {0, 0, 0}, 0, 1, 5, 32, 30, {}, {}},
      {"window_in_sequences", {100, 20, 65}, {0, 0, 0}, 0, 2, 1, 16, {}, 24, {}},
      {"soft_cap_in_sequences", {30, 20}, {0, 0}, 0, 2, 1, 16, {}, {}, 5.0},
      {"strided_sequences", {12, 80, 30}, {0, 0, 0}, 0, 2, 2, 7, {}, {}, {}, 1},
      {"odd_head", {4, 5}, {6, 2}, 6, 1, 2, 7, {}, {}, {}},
      {"groups_alike", {6, 6, 6, 5, 5}, {20, 20, 20, 21, 21}, 30, 2, 2, 32, {}, {}, {}},
      {"last_queries", {6, 9, 4}, {20, 17, 22}, 30, 2, 3, 32, 4, {}, {}},
      {"one_query", {6, 1, 4}, {20, 17, 22}, 30, 2, 1, 32, 1, {}, {}},
      {"few_queries_and_window", {6, 9, 30}, {20, 17, 2}, 30, 2, 2, 37, 3, 8, {}},
      {"few_queries_and_soft_cap", {6, 9}, {20, 17}, 30, 2, 2, 32, 2, {}, 5.0},
      {"one_query_of_many_keys", {300, 1}, {513, 0}, 600, 1, 8, 64, 1, {}, {}},
      {"window_within_the_rows", {12, 8}, {9, 30}, 30, 2, 2, 16, {}, 5, {}},
      {"window_into_the_prefix", {12, 8}, {9, 30}, 30, 2, 2, 16, 8, 20, {}},
      {"window_of_one", {3, 2}, {2, 0}, 4, 1, 2, 16, {}, 1, {}},
      {"soft_cap", {7, 9}, {9, 30}, 30, 2, 2, 16, {}, {}, 5.0},
      {"soft_cap_and_window", {7, 9}, {9, 30}, 30, 2, 2, 16, {}, 10, 5.0},
      {"tiles_of_queries", {70, 33}, {40, 64}, 64, 1, 3, 64, {}, {}, {}},
      {"tiles_of_keys", {300, 20}, {513, 256}, 600, 1, 1, 16, {}, {}, {}},
      {"own_keys_across_tiles", {20, 9, 300}, {251, 255, 243}, 260, 2, 1, 16, {}, {}, {}},
      {"tiles_outside_the_window", {300, 20}, {513, 600}, 600, 1, 1, 16, {}, 40, {}},
      {"slots", {12, 1, 30}, {0, 30, 7}, 30, 2, 2, 16, 1, {}, {}, 0, {20, 59, 4}},
      {"slots_that_overlap", {12, 8}, {9, 30}, 30, 2, 2, 16, {}, 10, 5.0, 1, {48, 44}},
      {"strided", {12, 8, 30}, {9, 30, 17}, 30, 2, 2, 16, {}, {}, {}, 1},
      {"strided_odd", {12, 8}, {9, 30}, 30, 2, 2, 7, 3, {}, {}, 1},
      {"strided_and_aligned", {12, 8, 30}, {9, 30, 17}, 30, 2, 2, 40, {}, {}, {}, 8},
      {"strided_slots", {12, 8}, {9, 30}, 30, 2, 3, 16, 5, 10, {}, 8, {48, 44}},
      {"one_continuation", {40}, {70}, 70, 2, 2, 64, {}, {}, {}},
      {"rows_of_one", std::vector<int64_t>(520, 1), std::vector<int64_t>(520, 9), 10, 1, 3, 16, {}, {}, {}},
      {"large_group", {5, 2}, {3, 0}, 5, 1, 71, 128, {}, {}, {}},
      {"wide_head_80", {30, 40, 7}, {20, 33, 0}, 40, 1, 3, 80, {}, {}, {}},
      {"wide_head_128", {30, 40, 7}, {20, 33, 0}, 40, 2, 1, 128, {}, {}, {}},
      {"wide_head_192", {30, 40}, {20, 33}, 40, 1, 2, 192, {}, 25, {}},
      {"wide_head_256", {30, 40}, {20, 33}, 40, 1, 2, 256, {}, {}, 5.0},
      {"wide_head_264", {3, 4}, {2, 3}, 4, 1, 2, 264, {}, {}, {}},
  };
}

/// A block of candidates of SmolLM2-135M, of a small llama, and of a model of a few billion parameters.
inline std::vector<SharedPrefixCase> shared_prefix_speed_cases() {
  const auto block = [](std::string name, int64_t kv_heads, int64_t group, int64_t head_dim) {
    return SharedPrefixCase{std::move(name),
                            std::vector<int64_t>(32, 32),
                            std::vector<int64_t>(32, 40),
                            50,
                            kv_heads,
                            group,
                            head_dim,
                            {},
                            {},
                            {}};
  };
  return {block("smollm2", 3, 3, 64), block("small_llama", 4, 1, 48), block("llama_3b", 8, 3, 128)};
}

/// Random inputs, the same at every call; out holds garbage.
inline SharedPrefixTensors shared_prefix_tensors(const SharedPrefixCase& c, at::ScalarType dtype,
                                                 at::Device device = at::kCPU) {
  at::manual_seed(23);
  const auto options = at::TensorOptions(device).dtype(dtype);
  const auto random = [&](std::vector<int64_t> shape) {
    const at::Tensor values = at::randn(shape, at::kDouble).to(options);
    if (c.gap == 0) return values;
    shape.front() *= 2;
    shape.back() += c.gap;
    return at::empty(shape, options).slice(0, 1, std::nullopt, 2).narrow(-1, c.gap, c.head_dim).copy_(values);
  };
  int64_t rows = 0, queries = 0;
  for (const int64_t own : c.rows) {
    rows += own;
    queries += c.queries.value_or(own);
  }
  if (!c.first_row.empty()) rows = 60;
  const std::vector<int64_t> by_query{queries, c.kv_heads, c.group, c.head_dim}, by_row{rows, c.kv_heads, c.head_dim},
      by_position{c.kv_heads, c.prefix, c.head_dim};
  return {random(by_query),
          random(by_row),
          random(by_row),
          random(by_position),
          random(by_position),
          random(by_query).fill_(7),
          {at::tensor(c.rows, at::kLong), at::tensor(c.visible, at::kLong), c.queries, c.window, 0.7, c.soft_cap,
           c.first_row.empty() ? std::nullopt : std::make_optional(at::tensor(c.first_row, at::kLong))}};
}

}  // namespace titer::test
