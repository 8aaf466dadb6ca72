#include "runtime/qemu/find.h"

#include <cstdlib>

#include "base/file.h"
#include "runtime/folders.h"

namespace runtime::qemu {
namespace {

constexpr uint64_t command_line_bytes_max = 1u << 20;

std::string words_of(const std::string& pid) {
  return base::read_file("/proc/" + pid + "/cmdline", command_line_bytes_max).value_or("");
}

std::string option(const std::string& uuid) { return std::string("-uuid\0", 6) + uuid; }

}  // namespace

bool has_uuid(int64_t pid, const std::string& uuid) {
  return words_of(std::to_string(pid)).find(option(uuid)) != std::string::npos;
}

base::Result<base::ProcessIdentity> find_by_uuid(const std::string& uuid) {
  const std::string wanted = option(uuid);
  for (const std::string& name : folder_names("/proc")) {
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    if (words_of(name).find(wanted) != std::string::npos)
      return base::identify_process(std::strtoll(name.c_str(), nullptr, 10));
  }
  return base::fail(base::ErrorCode::NotFound, "no process has uuid {}", uuid);
}

}  // namespace runtime::qemu
