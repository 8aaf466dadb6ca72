#include "base/file.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

namespace base {

Result<std::string> read_file(const std::string& path, uint64_t bytes_max) {
  const UniqueFd file = TRY(open_file(path, O_RDONLY));
  std::string content;
  char buffer[16384];
  for (;;) {
    const size_t count = TRY_DURING(read_some(file.get(), buffer), "'{}'", path);
    if (count == 0) return content;
    if (content.size() + count > bytes_max)
      return fail(ErrorCode::InvalidArgument, "'{}' is larger than {} bytes", path, bytes_max);
    content.append(buffer, count);
  }
}

Result<> sync_directory(const std::string& folder) {
  const UniqueFd opened = TRY(open_file(folder, O_RDONLY | O_DIRECTORY));
  if (::fsync(opened.get()) != 0) return fail_errno(errno, fmt::format("sync '{}'", folder));
  return {};
}

namespace {

enum class Waits { ForNothing, ForTheDisk };

Result<> fill(int fd, std::string_view content, unsigned mode, Waits waits) {
  if (::fchmod(fd, mode) != 0) return fail_errno(errno, "chmod");
  TRY(write_all(fd, content));
  if (waits == Waits::ForTheDisk && ::fsync(fd) != 0) return fail_errno(errno, "sync");
  return {};
}

Result<> put_in_place(const std::string& path, std::string_view content, unsigned mode,
                      Waits waits) {
  std::string temporary = path + ".XXXXXX";
  const UniqueFd file(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!file) return fail_errno(errno, fmt::format("create '{}'", temporary));
  Result<> written = fill(file.get(), content, mode, waits);
  if (written && ::rename(temporary.c_str(), path.c_str()) != 0)
    written = fail_errno(errno, "rename");
  if (!written) {
    ::unlink(temporary.c_str());
    return tl::unexpected<Error>(
        std::move(written.error()).during(fmt::format("write '{}'", path)));
  }
  return {};
}

}  // namespace

Result<> write_file_atomically(const std::string& path, std::string_view content, unsigned mode) {
  TRY(put_in_place(path, content, mode, Waits::ForTheDisk));
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  return sync_directory(folder.empty() ? "." : folder.string());
}

Result<> replace_file(const std::string& path, std::string_view content, unsigned mode) {
  return put_in_place(path, content, mode, Waits::ForNothing);
}

Result<> make_directories(const std::string& path) {
  std::error_code error;
  const std::filesystem::path wanted(path);
  if (std::filesystem::is_directory(wanted, error)) return {};
  if (wanted.has_parent_path() && wanted.parent_path() != wanted)
    TRY(make_directories(wanted.parent_path().string()));
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
    return fail_errno(errno, fmt::format("create folder '{}'", path));
  return {};
}

Result<> remove_tree(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) return fail_errno(error.value(), fmt::format("remove '{}'", path));
  return {};
}

bool path_exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

}  // namespace base
