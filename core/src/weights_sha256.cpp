#include <titer/core/sha256.h>
#include <titer/core/weights_sha256.h>

#include <map>
#include <sstream>

#include "pass_guard.h"

namespace titer {

std::string weights_sha256(const CausalLM& model) {
  const PassGuard guard(/*gradients=*/false);
  Sha256 hash;
  for (const auto& [name, tensor] : std::map(model.parameters().begin(), model.parameters().end())) {
    std::ostringstream header;  // names hold no line break
    header << name << '\n' << c10::toString(tensor.scalar_type()) << ' ' << tensor.sizes() << '\n';
    hash.update(header.str());
    const at::Tensor bytes = tensor.to(at::kCPU).contiguous();
    hash.update(std::string_view(static_cast<const char*>(bytes.const_data_ptr()), bytes.nbytes()));
  }
  return hash.finish().hex();
}

}  // namespace titer
