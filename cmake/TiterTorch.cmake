# Defines titer::torch (and titer::torch_cuda, titer::torch_python where they exist) from the files of a PyTorch
# wheel. Used by the build and by the installed titerConfig.cmake.
#
# find_package(Torch) is not used on purpose: with a CUDA wheel it fails without a CUDA toolkit, it changes global
# flags, and it makes every consumer depend on CUDA headers. Titer's public headers need none of them.
#
# Searched: TITER_TORCH_ROOT (the folder that holds include/ and lib/), CMAKE_PREFIX_PATH entries (the wheel's root or
# what torch.utils.cmake_prefix_path prints), then the torch of the Python interpreter.
include_guard(GLOBAL)

set(_titer_torch_candidates ${TITER_TORCH_ROOT})
foreach(_prefix IN LISTS CMAKE_PREFIX_PATH)
  list(APPEND _titer_torch_candidates "${_prefix}" "${_prefix}/../..")
endforeach()
find_path(TITER_TORCH_ROOT_FOUND NAMES include/ATen/ATen.h PATHS ${_titer_torch_candidates} NO_DEFAULT_PATH NO_CACHE)
if(NOT TITER_TORCH_ROOT_FOUND)
  find_package(Python3 COMPONENTS Interpreter QUIET)
  if(Python3_Interpreter_FOUND)
    execute_process(
      COMMAND "${Python3_EXECUTABLE}" -c
        "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')"
      OUTPUT_VARIABLE _titer_torch_python_root OUTPUT_STRIP_TRAILING_WHITESPACE)
    find_path(TITER_TORCH_ROOT_FOUND NAMES include/ATen/ATen.h PATHS "${_titer_torch_python_root}" NO_DEFAULT_PATH NO_CACHE)
  endif()
endif()
if(NOT TITER_TORCH_ROOT_FOUND)
  message(FATAL_ERROR "Titer needs PyTorch: pip install torch, or pass -DTITER_TORCH_ROOT=<folder with include/ and lib/>")
endif()
get_filename_component(TITER_TORCH_ROOT "${TITER_TORCH_ROOT_FOUND}" REALPATH)
set(TITER_TORCH_LIBRARY_DIR "${TITER_TORCH_ROOT}/lib")

if(NOT EXISTS "${TITER_TORCH_ROOT}/include/torch/headeronly/version.h")
  message(FATAL_ERROR "Titer is written for torch 2.11, found one older than 2.9 (${TITER_TORCH_ROOT}); install torch 2.11 or "
                      "put the python3 that has it first in PATH")
endif()
file(STRINGS "${TITER_TORCH_ROOT}/include/torch/headeronly/version.h" _titer_torch_version_lines
     REGEX "#define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*PATCH ([0-9]+).*" "\\1.\\2.\\3" TITER_TORCH_VERSION
       "${_titer_torch_version_lines}")

# libtorch's C++ interface is not stable between releases: what was built against one version runs with that one only.
if(DEFINED TITER_REQUIRED_TORCH_VERSION AND NOT TITER_TORCH_VERSION VERSION_EQUAL TITER_REQUIRED_TORCH_VERSION)
  message(FATAL_ERROR "Titer was built against torch ${TITER_REQUIRED_TORCH_VERSION}, found ${TITER_TORCH_VERSION} "
                      "(${TITER_TORCH_ROOT}); install that version or rebuild Titer")
endif()

function(_titer_import_torch_library name)
  set(_file "${TITER_TORCH_LIBRARY_DIR}/lib${name}.so")
  if(EXISTS "${_file}" AND NOT TARGET titer_torch::${name})
    add_library(titer_torch::${name} SHARED IMPORTED GLOBAL)
    set_target_properties(titer_torch::${name} PROPERTIES IMPORTED_LOCATION "${_file}" IMPORTED_NO_SONAME OFF)
  endif()
endfunction()
foreach(_name c10 torch_cpu c10_cuda torch_cuda torch_python)
  _titer_import_torch_library(${_name})
endforeach()

add_library(titer::torch INTERFACE IMPORTED GLOBAL)
target_include_directories(titer::torch SYSTEM INTERFACE
  "${TITER_TORCH_ROOT}/include" "${TITER_TORCH_ROOT}/include/torch/csrc/api/include")
target_link_libraries(titer::torch INTERFACE titer_torch::torch_cpu titer_torch::c10)
