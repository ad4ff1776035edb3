// A block of 32 x 32 results is four tiles of 16 x 16 floats, which takes one load of a tile for each product of two:
// more results would need more than the eight tiles there are.
#include "cpu/amx_product.h"

#include <algorithm>

#if defined(__x86_64__) && defined(__linux__)

#include <ATen/cpu/Utils.h>
#include <cpuid.h>
#include <immintrin.h>

#if defined(__GNUC__) && !defined(__clang__)
// Of GCC's own header: bug 105593.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#define TITER_AMX __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx512bf16")))

namespace titer::cpu {
namespace {

constexpr int64_t kTile = 16;  // rows of a tile; of 16 floats or 32 numbers of bfloat16
constexpr int64_t kTileRowBytes = 64;
constexpr int64_t kTileElements = kTile * kAmxBlock;  // of bfloat16
constexpr int64_t kStep = 2 * kTileElements;          // of a packed block, for kAmxBlock of the inner dimension
constexpr int64_t kPrefetchDistance = 8 * 1024;       // elements, at which a core reads weights from memory fastest

/// Transposes 16 rows of 16 words of 4 bytes, those from `count` on taken as zeros. Strides in bytes.
template <bool kAllPresent>
TITER_AMX inline void transpose_words(const void* in, int64_t in_stride, int64_t count, void* out, int64_t out_stride) {
  __m512i a[kTile], b[kTile];
  const auto* const from = static_cast<const char*>(in);
#pragma GCC unroll 16
  for (int i = 0; i < kTile; ++i) {
    a[i] = kAllPresent || i < count ? _mm512_loadu_si512(from + i * in_stride) : _mm512_setzero_si512();
  }
  // Words of neighbouring rows, then pairs of words, come together; then quarters of vectors are exchanged twice.
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    b[2 * i] = _mm512_unpacklo_epi32(a[2 * i], a[2 * i + 1]);
    b[2 * i + 1] = _mm512_unpackhi_epi32(a[2 * i], a[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < kTile; i += 4) {
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
    a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    b[i] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88);
    b[i + 4] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd);
    b[i + 8] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88);
    b[i + 12] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xdd);
  }
  auto* const to = static_cast<char*>(out);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    _mm512_storeu_si512(to + i * out_stride, _mm512_shuffle_i32x4(b[i], b[i + 8], 0x88));
    _mm512_storeu_si512(to + (i + 8) * out_stride, _mm512_shuffle_i32x4(b[i], b[i + 8], 0xdd));
  }
}

TITER_AMX inline __m512 load(const uint16_t* from, __mmask16 mask) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from)), 16));
}

/// Columns of the block of results whose bit is set, of rows [begin, end).
TITER_AMX void finish(const float (&block)[kAmxBlock][kAmxBlock], int64_t begin, int64_t end, __mmask32 columns,
                      const LinearOutput& to) {
  const auto low = static_cast<__mmask16>(columns), high = static_cast<__mmask16>(columns >> 16);
  __m512 bias_low = _mm512_setzero_ps(), bias_high = bias_low;
  if (to.bias != nullptr) {
    bias_low = load(to.bias, low);
    bias_high = load(to.bias + kTile, high);
  }
  for (int64_t r = begin; r < end; ++r) {
    __m512 left = _mm512_add_ps(_mm512_load_ps(block[r]), bias_low);
    __m512 right = _mm512_add_ps(_mm512_load_ps(block[r] + kTile), bias_high);
    if (to.residual != nullptr) {
      const uint16_t* const residual = to.residual + r * to.residual_stride;
      left = _mm512_add_ps(left, load(residual, low));
      right = _mm512_add_ps(right, load(residual + kTile, high));
    }
    const auto rounded = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(right, left));
    _mm512_mask_storeu_epi16(to.out + r * to.out_stride, columns, rounded);
  }
}

/// block = left · right of 32 rows of each; the lines behind `ahead` are asked for, as many as are read of one of them,
/// which may lie behind the end of what there is.
TITER_AMX inline void multiply_block(const uint16_t* left, int64_t left_stride, const uint16_t* right, int64_t inner,
                                     const uint16_t* ahead, float (&block)[kAmxBlock][kAmxBlock]) {
  const auto row_bytes = left_stride * static_cast<int64_t>(sizeof(uint16_t));
  const uint16_t* const lower = left + kTile * left_stride;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t k = 0; k < inner; k += kAmxBlock, right += kStep, ahead += kStep) {
#pragma GCC unroll 32
    for (int64_t line = 0; line < kStep; line += 32) _mm_prefetch(ahead + line, _MM_HINT_T0);
    _tile_loadd(4, left + k, row_bytes);
    _tile_loadd(6, right, kTileRowBytes);
    _tile_loadd(7, right + kTileElements, kTileRowBytes);
    _tile_loadd(5, lower + k, row_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, &block[0][0], sizeof(block[0]));
  _tile_stored(1, &block[0][kTile], sizeof(block[0]));
  _tile_stored(2, &block[kTile][0], sizeof(block[0]));
  _tile_stored(3, &block[kTile][kTile], sizeof(block[0]));
}

TITER_AMX inline void transpose_block(const float (&in)[kAmxBlock][kAmxBlock], float (&out)[kAmxBlock][kAmxBlock]) {
  for (int64_t i = 0; i < kAmxBlock; i += kTile)
    for (int64_t j = 0; j < kAmxBlock; j += kTile)
      transpose_words<true>(&in[i][j], sizeof(in[0]), kTile, &out[j][i], sizeof(out[0]));
}

constexpr __mmask32 first_columns(int64_t count) {
  return count >= kAmxBlock ? ~__mmask32{0} : (__mmask32{1} << count) - 1;
}

/// "Palette 1" of Intel's manual, volume 1, chapter 18. Constant, for GCC's _tile_loadconfig does not say that it reads
/// all of it.
struct alignas(64) TileConfiguration {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr TileConfiguration kFullTiles;

TITER_AMX void configure_tiles() { _tile_loadconfig(&kFullTiles); }

TITER_AMX void release_tiles() { _tile_release(); }

}  // namespace

bool has_amx() {
  static const bool has = [] {
    constexpr unsigned kTiles = 1U << 24 | 1U << 22;               // EDX of leaf 7: AMX-TILE, AMX-BF16
    constexpr unsigned kVectors = 1U << 16 | 1U << 30 | 1U << 31;  // EBX: AVX512F, BW, VL
    constexpr unsigned kVectorsOfBFloat16 = 1U << 5;               // EAX of leaf 7, sub-leaf 1: AVX512_BF16
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 || (edx & kTiles) != kTiles ||
        (ebx & kVectors) != kVectors)
      return false;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & kVectorsOfBFloat16) != 0 &&
           at::cpu::init_amx();
  }();
  return has;
}

AmxScope::AmxScope() { configure_tiles(); }
AmxScope::~AmxScope() { release_tiles(); }

TITER_AMX void amx_pack(BFloat16Rows rows, int64_t count, uint16_t* packed) {
  constexpr auto kElementBytes = static_cast<int64_t>(sizeof(uint16_t));
  for (int64_t block = 0; block < count; block += kAmxBlock) {
    for (int64_t k = 0; k < rows.inner; k += kAmxBlock) {
      for (int64_t row = block; row < block + kAmxBlock; row += kTile, packed += kTileElements) {
        const uint16_t* const from = rows.data + row * rows.stride + k;
        if (count - row >= kTile) {
          transpose_words<true>(from, rows.stride * kElementBytes, kTile, packed, kTileRowBytes);
        } else {
          transpose_words<false>(from, rows.stride * kElementBytes, count - row, packed, kTileRowBytes);
        }
      }
    }
  }
}

TITER_AMX void amx_multiply(AmxLeft role, BFloat16Rows left, int64_t begin, int64_t end, const uint16_t* right,
                            int64_t right_count, const LinearOutput& to) {
  alignas(64) float block[kAmxBlock][kAmxBlock], transposed[kAmxBlock][kAmxBlock];
  for (int64_t l = begin; l < end; l += kAmxBlock) {
    // A last block that is not full begins earlier, and what it computes again is dropped.
    const int64_t first = std::min(l, left.count - kAmxBlock), known = l - first;
    const uint16_t* const rows = left.data + first * left.stride;
    for (int64_t r = 0; r < right_count; r += kAmxBlock) {
      const uint16_t* const columns = right + r * left.inner;
      const int64_t count = std::min(kAmxBlock, right_count - r);
      if (role == AmxLeft::kInputs) {
        multiply_block(rows, left.stride, columns, left.inner, columns + 2 * kStep, block);
        finish(block, known, kAmxBlock, first_columns(count), to.at(first, r));
      } else {
        const uint16_t* const ahead = r == 0 ? rows + kPrefetchDistance : columns + 2 * kStep;
        multiply_block(rows, left.stride, columns, left.inner, ahead, block);
        transpose_block(block, transposed);
        finish(transposed, 0, count, ~__mmask32{0} << known, to.at(r, first));
      }
    }
  }
}

}  // namespace titer::cpu

#else

namespace titer::cpu {

bool has_amx() { return false; }

// Nobody calls these where has_amx() is false.
AmxScope::AmxScope() = default;
AmxScope::~AmxScope() = default;
void amx_pack(BFloat16Rows, int64_t, uint16_t*) {}
void amx_multiply(AmxLeft, BFloat16Rows, int64_t, int64_t, const uint16_t*, int64_t, const LinearOutput&) {}

}  // namespace titer::cpu

#endif
