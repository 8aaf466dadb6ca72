/// Layer disks with any bytes in them: all of it is read, within the disk, and it ends.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cstdlib>
#include <string>

#include "image/root_view.h"

namespace {

void walk(const image::RootView& view, const std::string& path, int& left) {
  const auto children = view.list(path);
  if (!children) return;
  for (const auto& [name, node] : *children) {
    if (--left < 0) return;
    if (name.empty() || name.find('/') != std::string::npos) std::abort();
    const std::string below = path.empty() ? name : path + "/" + name;
    if (S_ISDIR(node.mode)) walk(view, below, left);
    uint64_t bytes = 0;
    const auto read = view.read(below, [&](std::string_view piece) -> base::Result<> {
      bytes += piece.size();
      return {};
    });
    if (read && bytes != node.size) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Disks are opened by name, never through a link: a file of this process's own.
  static const std::string path = "/dev/shm/root-view-fuzz-" + std::to_string(::getpid());
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file < 0) std::abort();
  if (::write(file, data, size) != static_cast<ssize_t>(size)) std::abort();
  ::close(file);
  const auto view = image::RootView::open({path, path});
  ::unlink(path.c_str());
  if (!view) return 0;
  int left = 200;
  walk(**view, "", left);
  return 0;
}
