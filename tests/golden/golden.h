#pragma once
/// Texts as they shall be, stored beside the tests. UPDATE_GOLDEN=1 stores them as they are now;
/// the difference is then for a person to read and to commit.

#include <cstdlib>
#include <string>

#include <doctest/doctest.h>

#include "base/file.h"

namespace golden {

inline bool is_update() { return std::getenv("UPDATE_GOLDEN") != nullptr; }

inline std::string read(const std::string& path) {
  const auto stored = base::read_file(path, 4u << 20);
  REQUIRE_MESSAGE(stored, "no golden file; make it with UPDATE_GOLDEN=1: ",
                  stored ? "" : stored.error().to_string());
  return *stored;
}

/// `path` below the source folder.
inline void check(const std::string& path, const std::string& text) {
  const std::string full = std::string(CONTAINER_SOURCE_DIR) + "/" + path;
  if (is_update()) REQUIRE(base::write_file_atomically(full, text, 0644));
  const std::string stored = read(full);
  CHECK_MESSAGE(text == stored, path, " differs; if that is meant: UPDATE_GOLDEN=1");
}

}  // namespace golden
