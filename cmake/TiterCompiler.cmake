# Warnings, sanitizers and the export header, shared by every target of the project.
add_library(titer_warnings INTERFACE)
target_compile_options(titer_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic>
  # GCC 12 sees overlapping copies in operator+(const char*, std::string): https://gcc.gnu.org/PR105651
  $<$<AND:$<COMPILE_LANG_AND_ID:CXX,GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict>
  $<$<AND:$<BOOL:${TITER_WERROR}>,$<COMPILE_LANGUAGE:CXX>>:-Werror>)

if(TITER_SANITIZE)
  add_compile_options(-fsanitize=${TITER_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${TITER_SANITIZE})
endif()

# One export macro (TITER_EXPORT in <titer/export.h>) for all layers: they are linked into one shared library.
set(TITER_GENERATED_INCLUDE_DIR "${CMAKE_CURRENT_BINARY_DIR}/include")
file(CONFIGURE OUTPUT "${TITER_GENERATED_INCLUDE_DIR}/titer/export.h" CONTENT [[#pragma once
/// Marks what the shared library shows; everything else has hidden visibility.
#define TITER_EXPORT __attribute__((visibility("default")))
]])
