#include "api/paths.h"

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <system_error>

#include <unistd.h>

#include "base/file.h"

namespace api {
namespace {

using std::filesystem::path;

/// Empty variables count as absent, as the XDG specification asks.
std::optional<std::string> variable(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return std::string(value);
}

/// The same folder must give the same run folder, however it was written.
std::string canonical(const std::string& folder) {
  std::error_code error;
  path resolved = std::filesystem::weakly_canonical(std::filesystem::absolute(folder), error);
  if (error) resolved = std::filesystem::absolute(folder, error).lexically_normal();
  std::string text = resolved.string();
  while (text.size() > 1 && text.back() == '/') text.pop_back();
  return text;
}

base::Result<std::string> find_app_root() {
  if (const auto root = variable("CONTAINER_APP_ROOT")) return canonical(*root);
  if (::geteuid() == 0) return std::string("/var/lib/container");
  if (const auto data = variable("XDG_DATA_HOME")) return canonical(*data + "/container");
  if (const auto home = variable("HOME")) return canonical(*home + "/.local/share/container");
  return base::fail(base::ErrorCode::InvalidArgument,
                    "no place for our state: set HOME or CONTAINER_APP_ROOT");
}

/// FNV-1a: short and stable across versions; 64 bits tell a user's app roots apart.
std::string hash_of(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char byte : text) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001b3;
  return fmt::format("{:016x}", hash);
}

std::string run_root_of(const std::string& app_root) {
  std::string base;
  if (::geteuid() == 0)
    base = "/run";
  else
    base = fmt::format("/tmp/container-{}", ::geteuid());
  if (const auto runtime = variable("XDG_RUNTIME_DIR")) base = *runtime;
  return base + "/container/" + hash_of(app_root);
}

base::Result<path> own_folder() {
  std::error_code error;
  const path executable = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return base::fail_errno(error.value(), "find our own executable");
  return executable.parent_path();
}

struct Installed {
  std::string programs;
  std::string guest;
};

/// The folder of the kernel that belongs to programs in `programs` below `root`.
std::string guest_folder(const path& root, const path& programs) {
  const path beside = programs.parent_path();
  for (const path& folder : {programs / "guest", root / "guest", programs, beside / "guest",
                             beside.parent_path() / "share" / "container"})
    if (base::path_exists((folder / "vmlinux").string())) return folder.string();
  return (beside / "guest").string();
}

/// Looks below `root` in the shapes of an installation and of a build tree.
std::optional<Installed> installed_below(const path& root) {
  for (const path& programs : {root / "libexec" / "container", root / "bin", root})
    if (base::path_exists((programs / "container-apiserver").string()))
      return Installed{.programs = programs.string(), .guest = guest_folder(root, programs)};
  return std::nullopt;
}

base::Result<Installed> find_installed() {
  if (const auto root = variable("CONTAINER_INSTALL_ROOT")) {
    if (auto found = installed_below(canonical(*root))) return std::move(*found);
    return base::fail(base::ErrorCode::NotFound,
                      "CONTAINER_INSTALL_ROOT is '{}', but container-apiserver is not below it",
                      *root);
  }
  const path own = TRY(own_folder());
  // Upwards from bin/, libexec/container/ or a build tree's tests/ to the root they share.
  for (path root = own; root.has_parent_path() && root != root.parent_path();
       root = root.parent_path()) {
    if (auto found = installed_below(root)) return std::move(*found);
    if (root == own.parent_path().parent_path()) break;
  }
  // A program that runs alone (a test): it needs folders only once it starts something.
  return Installed{.programs = own.string(), .guest = (own.parent_path() / "guest").string()};
}

}  // namespace

base::Result<Paths> find_paths() {
  Paths paths;
  paths.app_root = TRY(find_app_root());
  paths.run_root = run_root_of(paths.app_root);
  paths.log_root = canonical(variable("CONTAINER_LOG_ROOT").value_or(paths.app_root + "/log"));
  Installed installed = TRY(find_installed());
  paths.programs = std::move(installed.programs);
  paths.guest = std::move(installed.guest);
  return paths;
}

}  // namespace api
