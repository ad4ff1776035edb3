// The instruction sets that Highway compiles kernels for: AVX-512, AVX2 and the SSE2 baseline on x86, NEON on Arm. Each
// costs compile time. Included before any header of Highway.
#pragma once

#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
