#include <titer/core/cost.h>

#include <fstream>
#include <string>

namespace titer {

Memory resident_memory() {
  Memory memory;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) memory.peak = std::stoll(line.substr(6)) * 1024;
    if (line.starts_with("VmRSS:")) memory.now = std::stoll(line.substr(6)) * 1024;
  }
  return memory;
}

}  // namespace titer
