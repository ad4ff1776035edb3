#include <pybind11/functional.h>
#include <pybind11/stl.h>
#include <titer/core/shard.h>
#include <torch/csrc/utils/pybind.h>

#include <future>

#include "bindings.h"

namespace titer::python {
namespace {

/// Ctrl-C raises KeyboardInterrupt wherever the main thread runs Python. In the middle of an exchange that would leave
/// the other ranks waiting, so that exchanges run in a thread of their own; the next poll raises it.
template <typename Result, typename Argument>
std::function<Result(Argument)> uninterrupted(std::function<Result(Argument)> exchange) {
  if (!exchange) return {};
  return [exchange = std::move(exchange)](Argument tensor) {
    return std::async(std::launch::async, [&]() -> Result { return exchange(tensor); }).get();
  };
}

}  // namespace

void register_shard(py::module_& m) {
  py::class_<Shard>(m, "Shard", "One rank of several and how it reaches the others; use :class:`titer.Shard`.")
      .def(py::init([](int64_t rank, int64_t world, decltype(Shard::all_gather) all_gather,
                       decltype(Shard::broadcast) broadcast) {
             Shard shard{rank, world, uninterrupted(std::move(all_gather)), uninterrupted(std::move(broadcast))};
             check_shard(shard);
             return shard;
           }),
           py::arg("rank"), py::arg("world"), py::arg("all_gather"), py::arg("broadcast"))
      .def_readonly("rank", &Shard::rank, "Of this process, from 0.")
      .def_readonly("world", &Shard::world, "Number of ranks.")
      .def("__repr__",
           [](const Shard& self) { return py::str("Shard(rank={}, world={})").format(self.rank, self.world); });
}

}  // namespace titer::python
