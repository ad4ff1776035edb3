#include "bindings.h"

PYBIND11_MODULE(_titer, m) {
  m.doc() = "Compiled core of titer.";
  using namespace titer::python;
  register_errors(m);
  register_files(m);
  register_dataset(m);
  register_tokenizer(m);
  register_model(m);
  register_generation(m);
  register_prompt(m);
  register_shard(m);
  register_session(m);
  register_attacks(m);
  register_training(m);
  m.attr("__version__") = TITER_VERSION;
  m.def(
      "build_info",
      [] {
        py::dict info;
        info["titer"] = TITER_VERSION;
        info["torch"] = TITER_TORCH_VERSION;
        info["build_type"] = TITER_BUILD_TYPE;
#ifdef TITER_HAS_CUDA
        info["cuda"] = true;
#else
        info["cuda"] = false;
#endif
        return info;
      },
      "What this extension was built as and for.");
}
