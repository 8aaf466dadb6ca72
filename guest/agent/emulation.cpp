#include "guest/agent/emulation.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/fd.h"
#include "base/file.h"
#include "guest/agent/limits.h"

namespace agent {

using base::ErrorCode;
using base::fail;
using base::fail_errno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr const char* emulator_path = "/run/emulator";
constexpr const char* formats_folder = "/proc/sys/fs/binfmt_misc";

/// The partition is the program itself, as it lies on the host; here it becomes a file, since only
/// files are run.
Result<> take_program(const guest::Emulator& emulator, const std::string& image_disk) {
  if (emulator.bytes == 0 || emulator.bytes > limits::emulator_bytes_max)
    return fail(ErrorCode::InvalidArgument, "an emulator of {} bytes", emulator.bytes);
  const UniqueFd from =
      TRY(base::open_file(fmt::format("{}{}", image_disk, emulator.partition), O_RDONLY));
  const UniqueFd to =
      TRY(base::open_file(emulator_path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0755));
  uint64_t left = emulator.bytes;
  while (left > 0) {
    const ssize_t count =
        ::sendfile(to.get(), from.get(), nullptr,
                   static_cast<size_t>(std::min<uint64_t>(left, limits::emulator_bytes_max)));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "read the emulator");
    if (count == 0) return fail(ErrorCode::Io, "the emulator's partition is too short");
    left -= static_cast<uint64_t>(count);
  }
  return {};
}

}  // namespace

Result<> set_up_emulation(const guest::Emulator& emulator, const std::string& image_disk) {
  const std::string registration = emulator_registration(emulator.architecture, emulator_path);
  if (registration.empty())
    return fail(ErrorCode::Unsupported, "programs for '{}' cannot be emulated",
                emulator.architecture);
  TRY_DURING(take_program(emulator, image_disk), "take the emulator for '{}'",
             emulator.architecture);
  if (::mount("binfmt_misc", formats_folder, "binfmt_misc", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              nullptr) != 0 &&
      errno != EBUSY)
    return fail_errno(errno, "mount binfmt_misc");
  const UniqueFd file = TRY(base::open_file(std::string(formats_folder) + "/register", O_WRONLY));
  TRY_DURING(base::write_all(file.get(), registration), "register the emulator for '{}'",
             emulator.architecture);
  return {};
}

}  // namespace agent
