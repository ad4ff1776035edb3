#include "bindings.h"

PYBIND11_MODULE(_titer, m) {
  m.doc() = "Compiled core of titer.";
  using namespace titer::python;
  register_errors(m);
  register_tokenizer(m);
  register_model(m);
  register_prompt(m);
  register_session(m);
  register_attacks(m);
  m.attr("__version__") = TITER_VERSION;
  m.attr("__torch_version__") = TITER_TORCH_VERSION;
  m.attr("__build_type__") = TITER_BUILD_TYPE;
#ifdef TITER_HAS_CUDA
  m.attr("__cuda__") = true;
#else
  m.attr("__cuda__") = false;
#endif
}
