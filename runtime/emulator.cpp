#include "runtime/emulator.h"

#include <array>
#include <string_view>
#include <utility>

#include "base/file.h"
#include "base/text.h"

namespace runtime {

using base::ErrorCode;
using base::fail;
using base::Result;

namespace {

/// Ours and QEMU's names. The agent knows the same list (guest/agent/emulation_table.cpp).
constexpr std::array<std::pair<std::string_view, std::string_view>, 7> names = {
    {{"arm64", "aarch64"},
     {"arm", "arm"},
     {"riscv64", "riscv64"},
     {"ppc64le", "ppc64le"},
     {"s390x", "s390x"},
     {"mips64le", "mips64el"},
     {"loong64", "loongarch64"}}};

}  // namespace

Result<std::optional<std::string>> find_emulator(const std::string& architecture,
                                                 const std::string& folder) {
  if (architecture.empty() || architecture == "amd64" || architecture == "386")
    return std::optional<std::string>();
  for (const auto& [name, qemu] : names) {
    if (name != architecture) continue;
    const std::string path = fmt::format("{}/qemu-{}-static", folder, qemu);
    if (base::path_exists(path)) return std::optional<std::string>(path);
    return fail(ErrorCode::Unsupported,
                "an image for {} needs '{}' on this host: install the package qemu-user-static",
                architecture, path);
  }
  return fail(ErrorCode::Unsupported, "images for '{}' do not run on this machine",
              base::escape_controls(architecture));
}

}  // namespace runtime
