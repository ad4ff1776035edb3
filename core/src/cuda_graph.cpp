#include "cuda_graph.h"

#include <ATen/cuda/CUDAGraph.h>
#include <c10/core/Event.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>

namespace titer {
namespace {

class CudaGraph final : public WorkRecorder {
 public:
  explicit CudaGraph(c10::Device device)
      : stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device.index())) {}

  void warm_up(const std::function<void()>& work) override { on_own_stream(work); }

  void capture(const std::function<void()>& work) override {
    graph_.reset();
    on_own_stream([&] {
      auto graph = std::make_unique<at::cuda::CUDAGraph>();
      const c10::MempoolId_t pool = at::cuda::graph_pool_handle();
      try {
        graph->capture_begin(pool, cudaStreamCaptureModeThreadLocal);
        work();
        graph->capture_end();
      } catch (const std::exception& error) {
        // Never freed: the allocator may keep a filter that reads it.
        abandon(*graph.release(), pool);
        TORCH_WARN("[session] the gradient step goes on without a CUDA graph, capturing it failed: ", error.what());
        throw;
      }
      graph_ = std::move(graph);
    });
  }

  void replay() override { graph_->replay(); }

 private:
  /// Behind what the caller's stream was given before, and before what it is given afterwards.
  void on_own_stream(const std::function<void()>& work) const {
    const c10::cuda::CUDAStream callers = c10::cuda::getCurrentCUDAStream(stream_.device_index());
    wait(stream_, callers);
    const c10::cuda::CUDAStreamGuard guard(stream_);
    try {
      work();
    } catch (...) {
      wait(callers, stream_);
      throw;
    }
    wait(callers, stream_);
  }

  static void wait(const c10::cuda::CUDAStream& later, const c10::cuda::CUDAStream& earlier) {
    c10::Event event(c10::DeviceType::CUDA);
    event.record(earlier.unwrap());
    event.block(later.unwrap());
  }

  /// Ends a capture wherever it stopped, so that streams and allocator work as before.
  void abandon(at::cuda::CUDAGraph& graph, c10::MempoolId_t pool) const {
    try {
      graph.capture_end();
    } catch (const std::exception&) {
      try {  // what capture_end does behind the step that threw
        c10::cuda::CUDACachingAllocator::endAllocateToPool(stream_.device_index(), pool);
      } catch (const std::exception&) {  // it had got that far
      }
    }
  }

  c10::cuda::CUDAStream stream_;
  std::unique_ptr<at::cuda::CUDAGraph> graph_;
};

}  // namespace

std::unique_ptr<WorkRecorder> make_cuda_graph(c10::Device device) { return std::make_unique<CudaGraph>(device); }

}  // namespace titer
