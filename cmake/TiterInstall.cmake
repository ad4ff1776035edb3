# cmake --install: library, headers, package configuration; inside a wheel, the extension module beside the library.
include(CMakePackageConfigHelpers)

# Torch's libraries and, beside torch in site-packages, the CUDA runtime that its wheel depends on.
set(_titer_rpath "$ORIGIN")
foreach(_packages "${TITER_TORCH_ROOT}/.." "$ORIGIN/..")
  list(APPEND _titer_rpath "${_packages}/torch/lib")
  if(TITER_HAS_CUDA)
    list(APPEND _titer_rpath "${_packages}/nvidia/cu${CUDAToolkit_VERSION_MAJOR}/lib")
  endif()
endforeach()
set_target_properties(titer PROPERTIES INSTALL_RPATH "${_titer_rpath}")

if(SKBUILD)
  install(TARGETS titer titer_python LIBRARY DESTINATION titer)
  install(FILES "${PROJECT_BINARY_DIR}/python/_torch_version.py" DESTINATION titer)
  return()
endif()

install(TARGETS titer EXPORT titerTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(NOT TITER_YAML)
  set(_left_out PATTERN "yaml_options.h" EXCLUDE)
endif()
foreach(_layer kernels core attacks)
  install(DIRECTORY ${_layer}/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h" ${_left_out})
endforeach()
install(DIRECTORY "${TITER_GENERATED_INCLUDE_DIR}/" DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

set(_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/titer)
install(EXPORT titerTargets NAMESPACE titer:: DESTINATION ${_package_dir})
configure_package_config_file(cmake/titerConfig.cmake.in "${CMAKE_CURRENT_BINARY_DIR}/titerConfig.cmake"
                              INSTALL_DESTINATION ${_package_dir})
write_basic_package_version_file("${CMAKE_CURRENT_BINARY_DIR}/titerConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/titerConfig.cmake" "${CMAKE_CURRENT_BINARY_DIR}/titerConfigVersion.cmake"
              cmake/TiterTorch.cmake
        DESTINATION ${_package_dir})
