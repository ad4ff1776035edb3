#include "titer/core/philox.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

namespace titer {
namespace {

// Known answers of the authors' own Random123 distribution (kat_vectors, philox 4x32 10).
TEST(Philox, equals_the_known_answers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// Recorded results depend on these numbers: if this fails, the stream has changed and old runs cannot be repeated.
TEST(Philox, streams_are_pinned) {
  Philox random(0, RandomPurpose::kCandidateSampling, 0, 0);
  const std::vector<std::uint32_t> words = {random.next32(), random.next32(), random.next32(), random.next32(),
                                            random.next32()};
  EXPECT_EQ(words, (std::vector<std::uint32_t>{1929358440, 2486823877, 3535550890, 1700502906, 3487835203}));
}

TEST(Philox, equal_coordinates_give_equal_draws) {
  Philox a(7, RandomPurpose::kGeneration, 3, 1'000'000'000'000);
  Philox b(7, RandomPurpose::kGeneration, 3, 1'000'000'000'000);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(a.next32(), b.next32());
}

TEST(Philox, every_coordinate_changes_the_stream) {
  const auto first = [](std::uint64_t seed, RandomPurpose purpose, std::uint32_t step, std::uint64_t item) {
    return Philox(seed, purpose, step, item).next64();
  };
  std::set<std::uint64_t> seen;
  for (const std::uint64_t seed : {0ULL, 1ULL, 1ULL << 32U, ~0ULL}) {
    for (const auto purpose : {RandomPurpose::kCandidateSampling, RandomPurpose::kGeneration}) {
      for (const std::uint32_t step : {0U, 1U, ~0U}) {
        for (const std::uint64_t item : {0ULL, 1ULL, 1ULL << 32U, ~0ULL}) {
          EXPECT_TRUE(seen.insert(first(seed, purpose, step, item)).second);
        }
      }
    }
  }
}

TEST(Philox, a_64_bit_draw_is_two_words_low_first) {
  Philox a(1, RandomPurpose::kDataOrder, 2, 3);
  Philox b(1, RandomPurpose::kDataOrder, 2, 3);
  const std::uint64_t low = a.next32();
  const std::uint64_t high = a.next32();
  EXPECT_EQ(b.next64(), low | high << 32U);
}

TEST(Philox, below_is_in_range_and_even) {
  Philox random(1, RandomPurpose::kCandidateSampling, 0, 0);
  EXPECT_THROW(random.below(0), std::invalid_argument);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(random.below(1), 0U);
  constexpr int kDraws = 60'000;
  constexpr std::size_t kFaces = 6;
  std::vector<int> counts(kFaces);
  for (int i = 0; i < kDraws; ++i) ++counts.at(random.below(kFaces));
  double chi_squared = 0;
  for (const int count : counts) chi_squared += std::pow(count - kDraws / 6.0, 2) / (kDraws / 6.0);
  EXPECT_LT(chi_squared, 20.5) << "p < 0.001 with 5 degrees of freedom";
}

// With n = 3 * 2^62 a multiplication without rejection would make one value of three twice as likely.
TEST(Philox, below_is_unbiased_where_multiplication_alone_is_not) {
  constexpr std::uint64_t kN = 3ULL << 62U;
  Philox random(2, RandomPurpose::kCandidateSampling, 0, 0);
  constexpr int kDraws = 30'000;
  std::vector<int> residues(3);
  for (int i = 0; i < kDraws; ++i) {
    const std::uint64_t draw = random.below(kN);
    ASSERT_LT(draw, kN);
    ++residues.at(draw % 3);
  }
  for (const int count : residues) EXPECT_NEAR(count, kDraws / 3, 400);
}

TEST(Philox, uniform_fills_the_unit_interval) {
  Philox random(3, RandomPurpose::kGeneration, 0, 0);
  double sum = 0;
  constexpr int kDraws = 100'000;
  for (int i = 0; i < kDraws; ++i) {
    const double draw = random.uniform();
    ASSERT_GE(draw, 0.0);
    ASSERT_LT(draw, 1.0);
    sum += draw;
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 0.005);
}

}  // namespace
}  // namespace titer
