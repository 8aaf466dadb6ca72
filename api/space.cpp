#include "api/space.h"

#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include <sys/stat.h>

namespace api {

namespace fs = std::filesystem;

uint64_t allocated_tree_bytes(const std::string& path) {
  constexpr uint64_t block_bytes = 512;  // of st_blocks, whatever the file system's are
  std::set<std::pair<dev_t, ino_t>> seen;
  const auto bytes_of = [&](const fs::path& one) -> uint64_t {
    struct stat info {};
    if (::lstat(one.c_str(), &info) != 0) return 0;
    if (info.st_nlink > 1 && !S_ISDIR(info.st_mode) &&
        !seen.emplace(info.st_dev, info.st_ino).second)
      return 0;
    return static_cast<uint64_t>(info.st_blocks) * block_bytes;
  };
  uint64_t bytes = bytes_of(path);
  std::error_code error;
  const auto options = fs::directory_options::skip_permission_denied;
  for (fs::recursive_directory_iterator at(path, options, error), end; !error && at != end;
       at.increment(error))
    bytes += bytes_of(at->path());
  return bytes;
}

}  // namespace api
