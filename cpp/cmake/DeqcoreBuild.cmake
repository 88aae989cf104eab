# SPDX-License-Identifier: Apache-2.0
# Build type, warnings, sanitizers and the choice of backends, as functions on targets: nothing global is set for a
# project that embeds this one.

if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()
set(DEQCORE_BUILD_TYPE "${CMAKE_BUILD_TYPE}")

function(deqcore_compile_options target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF CXX_SCAN_FOR_MODULES OFF)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow
                         -Wno-psabi -Wno-missing-field-initializers)
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    target_compile_options(${target} PRIVATE -Wno-unknown-attributes -Wno-gnu-folding-constant)
  endif()
  if(DEQCORE_WARNINGS_AS_ERRORS)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(DEQCORE_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${DEQCORE_SANITIZE} -fno-sanitize-recover=all
                                             -fno-omit-frame-pointer)
    target_link_options(${target} PUBLIC -fsanitize=${DEQCORE_SANITIZE})
  endif()
endfunction()

# The queues of this build. There is no CUDA backend yet; the option is here so that asking for one is an error and not
# a silent CPU build.
if(DEQCORE_CUDA STREQUAL "ON")
  message(FATAL_ERROR "DEQCORE_CUDA=ON: this version of deqcore has no CUDA backend")
endif()
message(STATUS "deqcore ${PROJECT_VERSION}: CPU only")
