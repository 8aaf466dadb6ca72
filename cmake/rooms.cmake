# A room is a folder with one library, its unit tests beside the code, and perhaps programs.
# Sources are listed by name, so that no wildcard takes a test into a library.

option(CONTAINER_WARNINGS_AS_ERRORS "Warnings are errors" ON)
set(CONTAINER_SANITIZE "" CACHE STRING "Sanitizers for all but the agent and what runs in QEMU: address,undefined")

add_library(container_flags INTERFACE)
target_include_directories(container_flags INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
target_compile_options(container_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wswitch-enum -Wnon-virtual-dtor
  -Wsuggest-override -Wunused-result
  # TRY uses statement expressions; designated initialisers leave defaulted members out on purpose.
  -Wno-missing-field-initializers
  # GCC 12 sees an overlapping copy in every assignment of a literal to a string (its bug 105651).
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
if(CONTAINER_WARNINGS_AS_ERRORS)
  target_compile_options(container_flags INTERFACE -Werror)
endif()
if(CONTAINER_SANITIZE)
  set(sanitized $<NOT:$<BOOL:$<TARGET_PROPERTY:CONTAINER_UNSANITIZED>>>)
  target_compile_options(container_flags INTERFACE
    $<${sanitized}:-fsanitize=${CONTAINER_SANITIZE}> $<${sanitized}:-fno-omit-frame-pointer>)
  target_link_options(container_flags INTERFACE $<${sanitized}:-fsanitize=${CONTAINER_SANITIZE}>)
endif()

if(CONTAINER_FUZZ)
  target_compile_options(container_flags INTERFACE -fsanitize=fuzzer-no-link,address,undefined
    -fno-sanitize-recover=undefined)
  target_link_options(container_flags INTERFACE -fsanitize=address,undefined)
endif()

# container_library(<name> SOURCES a.cpp… [LINKS other-library…])
function(container_library name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;LINKS" ${ARGN})
  add_library(${name} STATIC ${ROOM_SOURCES})
  target_link_libraries(${name} PUBLIC container_flags ${ROOM_LINKS})
endfunction()

# container_test(<name> SOURCES a_test.cpp… [LINKS …] [LABELS …]): one doctest program, one ctest entry.
function(container_test name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;LINKS;LABELS" ${ARGN})
  add_executable(${name} ${ROOM_SOURCES} ${CMAKE_SOURCE_DIR}/tests/doctest_main.cpp)
  target_link_libraries(${name} PRIVATE container_flags ${ROOM_LINKS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  # What is tested is optimised, the tests themselves need not be: they compile in half the time.
  target_compile_options(${name} PRIVATE -O0)
  # By what a bound of time or memory is multiplied where sanitizers or debug builds cost that much.
  target_compile_definitions(${name} PRIVATE
    CONTAINER_SOURCE_DIR="${CMAKE_SOURCE_DIR}" CONTAINER_BINARY_DIR="${CMAKE_BINARY_DIR}"
    CONTAINER_TEST_SLACK=$<IF:$<CONFIG:RelWithDebInfo,Release>,1,20>)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT 300 LABELS "unit;${ROOM_LABELS}")
endfunction()

# container_program(<name> SOURCES main.cpp… [LINKS …]): goes to build/bin and is installed.
function(container_program name)
  cmake_parse_arguments(ROOM "" "DESTINATION" "SOURCES;LINKS" ${ARGN})
  add_executable(${name} ${ROOM_SOURCES})
  target_link_libraries(${name} PRIVATE container_flags ${ROOM_LINKS})
  # A room brings every library it may need; those a program does not call cost each of its starts.
  target_link_options(${name} PRIVATE -Wl,--as-needed)
  if(NOT ROOM_DESTINATION)
    set(ROOM_DESTINATION libexec/container)
  endif()
  install(TARGETS ${name} RUNTIME DESTINATION ${ROOM_DESTINATION})
endfunction()

# Every header compiles alone: by its own source, which includes it first (tools/tidy.py sees to
# that), or by a generated one, in one library nobody links.
# Only headers of rooms that are part of the build, since their libraries bring include paths.
function(container_header_check)
  set(patterns)
  foreach(room ${CONTAINER_ROOMS})
    list(APPEND patterns ${CMAKE_SOURCE_DIR}/${room}/*.h)
  endforeach()
  file(GLOB_RECURSE headers RELATIVE ${CMAKE_SOURCE_DIR} CONFIGURE_DEPENDS ${patterns})
  set(sources)
  foreach(header ${headers})
    string(REGEX REPLACE "\\.h$" ".cpp" own ${header})
    if(EXISTS ${CMAKE_SOURCE_DIR}/${own})
      continue()
    endif()
    string(REPLACE "/" "_" flat ${header})
    set(source ${CMAKE_BINARY_DIR}/header_check/${flat}.cpp)
    file(CONFIGURE OUTPUT ${source} CONTENT "#include \"@header@\"\n" @ONLY)
    list(APPEND sources ${source})
  endforeach()
  add_library(header_check OBJECT EXCLUDE_FROM_ALL ${sources})
  target_compile_options(header_check PRIVATE -O0 -g0)
  # Headers of tests know the folders that container_test gives them.
  target_compile_definitions(header_check PRIVATE
    CONTAINER_SOURCE_DIR="${CMAKE_SOURCE_DIR}" CONTAINER_BINARY_DIR="${CMAKE_BINARY_DIR}")
  target_link_libraries(header_check PRIVATE container_flags fmt::fmt nlohmann_json::nlohmann_json
    spdlog::spdlog PkgConfig::uv PkgConfig::yamlcpp PkgConfig::nghttp2 PkgConfig::sqlite
    PkgConfig::microhttpd libarchive PkgConfig::crypto)
endfunction()
