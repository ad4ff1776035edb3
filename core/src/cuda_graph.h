// Captures work in a CUDA graph.
#pragma once

#include <c10/core/Device.h>

#include <memory>

#include "captured_pass.h"

namespace titer {

/// On a stream and with a memory pool of its own; other threads may use the device meanwhile. A capture that fails
/// warns with the reason.
std::unique_ptr<WorkRecorder> make_cuda_graph(c10::Device device);

}  // namespace titer
