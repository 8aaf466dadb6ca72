#include "runtime/qemu/find.h"

#include <cstdlib>

#include "base/file.h"
#include "runtime/folders.h"

namespace runtime::qemu {
namespace {

constexpr uint64_t command_line_bytes_max = 1u << 20;

}  // namespace

base::Result<base::ProcessIdentity> find_by_uuid(const std::string& uuid) {
  const std::string wanted = std::string("-uuid\0", 6) + uuid;
  for (const std::string& name : folder_names("/proc")) {
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const auto line = base::read_file("/proc/" + name + "/cmdline", command_line_bytes_max);
    if (line && line->find(wanted) != std::string::npos)
      return base::identify_process(std::strtoll(name.c_str(), nullptr, 10));
  }
  return base::fail(base::ErrorCode::NotFound, "no process has uuid {}", uuid);
}

}  // namespace runtime::qemu
