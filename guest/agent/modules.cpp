#include "guest/agent/modules.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <sstream>
#include <vector>

#include "base/fd.h"
#include "base/file.h"
#include "guest/agent/limits.h"
#include "guest/agent/system.h"

namespace agent {
namespace {

using base::ErrorCode;
using base::fail;
using base::fail_errno;
using base::Result;

constexpr uint64_t table_bytes_max = 8u << 20;

std::string plain_name(std::string name) {
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

/// `kernel/net/foo-bar.ko` → `foo_bar`
std::string name_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string file = slash == std::string::npos ? path : path.substr(slash + 1);
  return plain_name(file.substr(0, file.find(".ko")));
}

/// Path of each module by name, and the paths it needs, the nearest first.
using Dependencies = std::map<std::string, std::vector<std::string>>;

Result<Dependencies> read_dependencies(const std::string& folder) {
  std::istringstream text(TRY(base::read_file(folder + "/modules.dep", table_bytes_max)));
  Dependencies result;
  for (std::string line; std::getline(text, line);) {
    std::istringstream words(line);
    std::string path;
    if (!(words >> path) || path.back() != ':') continue;
    path.pop_back();
    std::vector<std::string>& paths = result[name_of(path)];
    paths.push_back(path);
    for (std::string needed; words >> needed;) paths.push_back(needed);
  }
  return result;
}

Result<std::vector<std::string>> names_of_alias(const std::string& folder,
                                                const std::string& alias) {
  std::istringstream text(TRY(base::read_file(folder + "/modules.alias", table_bytes_max)));
  std::vector<std::string> names;
  for (std::string line; std::getline(text, line);) {
    std::istringstream words(line);
    std::string keyword, pattern, module;
    if (!(words >> keyword >> pattern >> module) || keyword != "alias") continue;
    if (::fnmatch(pattern.c_str(), alias.c_str(), 0) == 0 ||
        ::fnmatch(plain_name(pattern).c_str(), plain_name(alias).c_str(), 0) == 0)
      names.push_back(plain_name(module));
  }
  return names;
}

Result<> insert(const std::string& path) {
  const base::UniqueFd file = TRY(base::open_file(path, O_RDONLY));
  if (::syscall(SYS_finit_module, file.get(), "", 0) != 0 && errno != EEXIST)
    return fail_errno(errno, fmt::format("load '{}'", path));
  return {};
}

}  // namespace

Result<> load_module(const std::string& name) {
  utsname system{};
  ::uname(&system);
  const std::string folder = fmt::format("{}/{}", modules_folder, system.release);
  if (!base::path_exists(folder)) TRY(mount_modules());
  const Dependencies dependencies = TRY(read_dependencies(folder));
  std::vector<std::string> names = {plain_name(name)};
  if (!dependencies.contains(names[0])) names = TRY(names_of_alias(folder, name));
  bool found = false;
  for (const std::string& each : names) {
    const auto entry = dependencies.find(each);
    if (entry == dependencies.end()) continue;
    found = true;
    for (auto path = entry->second.rbegin(); path != entry->second.rend(); ++path)
      TRY(insert(folder + "/" + *path));
  }
  if (!found) return fail(ErrorCode::NotFound, "there is no kernel module '{}'", name);
  return {};
}

}  // namespace agent
