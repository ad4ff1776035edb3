// A function that runs on a stack of its own, in turns with others on the same CPU thread.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstddef>

namespace titer::cuda_on_cpu {

class Fiber {
 public:
  Fiber() = default;
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// The next switch to this fiber calls `body`, which must not return. What ran here before is forgotten, its
  /// destructors with it.
  void start(void (*body)());

  /// Goes on where `next` stopped; returns when somebody switches to this fiber, which must be the one that runs. A
  /// fiber that was never started stands for the function that calls this, on the stack of its thread.
  void switch_to(Fiber& next);

 private:
  static void enter();
  void arrive();

  std::byte* stack_ = nullptr;
  void (*body_)() = nullptr;
  bool has_begun_ = false;
  ucontext_t beginning_{};
  jmp_buf here_{};
  // What the address sanitizer must know of a stack.
  const void* bottom_ = nullptr;
  size_t size_ = 0;
  void* fake_stack_ = nullptr;
};

}  // namespace titer::cuda_on_cpu
