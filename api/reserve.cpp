#include "api/reserve.h"

#include <cerrno>
#include <filesystem>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fd.h"

namespace api {

base::Result<> Reserve::hold() {
  struct stat info {};
  if (::stat(path_.c_str(), &info) == 0 && info.st_size == bytes_) return {};
  const std::string folder = std::filesystem::path(path_).parent_path().string();
  struct statvfs disk {};
  if (::statvfs(folder.c_str(), &disk) != 0)
    return base::fail_errno(errno, fmt::format("look at the disk of '{}'", folder));
  const uint64_t free_bytes = static_cast<uint64_t>(disk.f_bavail) * disk.f_frsize;
  // Otherwise the reserve itself would be what fills the disk.
  if (free_bytes < 2 * static_cast<uint64_t>(bytes_))
    return base::fail(base::ErrorCode::NoSpace,
                      "only {} bytes are free on the disk of '{}'; make room there", free_bytes,
                      folder);
  const base::UniqueFd file = TRY(base::open_file(path_, O_RDWR | O_CREAT));
  const int failure = ::posix_fallocate(file.get(), 0, bytes_);
  if (failure != 0) {
    ::unlink(path_.c_str());
    return base::fail_errno(failure, fmt::format("reserve {} bytes in '{}'", bytes_, path_));
  }
  return {};
}

bool Reserve::give_up() { return ::unlink(path_.c_str()) == 0; }

}  // namespace api
