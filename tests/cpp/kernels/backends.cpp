#include "backends.h"

namespace titer::test {

const bool kCudaOnCpu = false;

}  // namespace titer::test
