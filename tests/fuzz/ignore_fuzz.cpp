/// Ignore files and paths of strangers. The first line is a path, the rest the file: both ways to
/// ask agree, and a folder that no exception reaches hides everything below it.

#include <cstdlib>
#include <string>

#include "builder/ignore.h"

namespace {

/// Relative, without empty pieces: as trees have paths.
std::string path_of(std::string_view text) {
  std::string path;
  for (const char c : text)
    if (c != '/' || (!path.empty() && path.back() != '/')) path += c;
  while (path.ends_with('/')) path.pop_back();
  return path;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = input.find('\n');
  if (end == std::string_view::npos || size > 4096) return 0;
  const std::string path = path_of(input.substr(0, end));
  const auto ignore = builder::Ignore::parse(input.substr(end + 1));
  if (!ignore || path.empty()) return 0;
  builder::Ignore::State state = ignore->root();
  bool hidden = false;  // by a folder that nothing may be let in below of
  for (size_t slash = path.find('/'); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    const std::string_view folder = std::string_view(path).substr(0, slash);
    state = ignore->state(state, folder);
    hidden = hidden || (state.excluded && !ignore->may_include_below(folder));
  }
  const bool excluded = ignore->state(state, path).excluded;
  if (excluded != ignore->excludes(path)) std::abort();
  if (hidden && !excluded) std::abort();
  return 0;
}
