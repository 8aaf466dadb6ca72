#include "base/host.h"

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "base/file.h"

namespace base {

constexpr uint64_t proc_file_bytes_max = 64 * 1024;

bool ids_are_mapped(uint32_t first, uint32_t count) {
  const auto mapped = [&](const char* path) {
    std::istringstream lines(read_file(path, proc_file_bytes_max).value_or(""));
    uint64_t inside = 0;
    uint64_t outside = 0;
    uint64_t length = 0;
    while (lines >> inside >> outside >> length)
      if (inside <= first && uint64_t{first} + count <= inside + length) return true;
    return false;
  };
  return mapped("/proc/self/uid_map") && mapped("/proc/self/gid_map");
}

int64_t processor_wait_ns(int64_t pid) {
  int64_t longest = 0;
  std::error_code error;
  std::filesystem::directory_iterator thread(fmt::format("/proc/{}/task", pid), error);
  for (; !error && thread != std::filesystem::directory_iterator(); thread.increment(error)) {
    // Time on a processor, time waiting for one, and how often.
    std::istringstream numbers(
        read_file(thread->path().string() + "/schedstat", proc_file_bytes_max).value_or(""));
    int64_t ran = 0;
    int64_t waited = 0;
    if (numbers >> ran >> waited) longest = std::max(longest, waited);
  }
  return longest;
}

}  // namespace base
