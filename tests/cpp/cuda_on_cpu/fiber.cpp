#undef _FORTIFY_SOURCE  // its longjmp takes a jump to another stack for an error
#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#if defined(__has_feature)  // clang's way to say what GCC says with a macro
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace titer::cuda_on_cpu {
namespace {

constexpr size_t kStackBytes = 128 * 1024;

Fiber* leaving = nullptr;
Fiber* entering = nullptr;

}  // namespace

Fiber::~Fiber() {
  if (stack_ != nullptr) munmap(stack_, kStackBytes);
}

void Fiber::start(void (*body)()) {
  if (stack_ == nullptr) {
    void* const memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "stack of a GPU thread");
    stack_ = static_cast<std::byte*>(memory);
    // Whoever needs more stack than there is stops here, and not in the stack below.
    mprotect(stack_, static_cast<size_t>(sysconf(_SC_PAGESIZE)), PROT_NONE);
  }
#ifdef __SANITIZE_ADDRESS__
  ASAN_UNPOISON_MEMORY_REGION(stack_, kStackBytes);  // of the function that was forgotten
#endif
  body_ = body;
  has_begun_ = false;
#ifdef __SANITIZE_ADDRESS__
  fake_stack_ = nullptr;
#endif
  getcontext(&beginning_);
  beginning_.uc_stack.ss_sp = stack_;
  // Tops of stacks at one place of their pages would push each other out of the cache.
  static size_t starts = 0;
  beginning_.uc_stack.ss_size = kStackBytes - starts++ % 64 * 64;
  beginning_.uc_link = nullptr;
  makecontext(&beginning_, enter, 0);
  bottom_ = stack_;
  size_ = kStackBytes;
}

// Jumps in place of swapcontext, which asks the kernel for the signal mask each time.
void Fiber::switch_to(Fiber& next) {
  leaving = this;
  entering = &next;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&fake_stack_, next.bottom_, next.size_);
#endif
  if (_setjmp(here_) == 0) {
    if (next.stack_ == nullptr || next.has_begun_) _longjmp(next.here_, 1);
    next.has_begun_ = true;
    setcontext(&next.beginning_);
  }
  arrive();
}

void Fiber::enter() {
  entering->arrive();
  entering->body_();
}

void Fiber::arrive() {
#ifdef __SANITIZE_ADDRESS__
  const void* bottom = nullptr;
  size_t size = 0;
  __sanitizer_finish_switch_fiber(fake_stack_, &bottom, &size);
  leaving->bottom_ = bottom;
  leaving->size_ = size;
#endif
}

}  // namespace titer::cuda_on_cpu
