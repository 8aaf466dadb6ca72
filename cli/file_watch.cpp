#include "cli/file_watch.h"

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>

#include <sys/inotify.h>
#include <unistd.h>

namespace cli {

using base::Result;

namespace {

constexpr uint32_t changes =
    IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_ONLYDIR;

}  // namespace

Result<FileWatch> FileWatch::open() {
  base::UniqueFd fd(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!fd) return base::fail_errno(errno, "watch files");
  return FileWatch(std::move(fd));
}

Result<> FileWatch::set(const std::set<std::string>& files) {
  files_ = files;
  std::set<std::string> wanted;
  for (const std::string& file : files)
    wanted.insert(std::filesystem::path(file).parent_path().string());
  for (auto known = folders_.begin(); known != folders_.end();) {
    if (wanted.erase(known->second) != 0) {
      ++known;
      continue;
    }
    (void)::inotify_rm_watch(fd_.get(), known->first);
    known = folders_.erase(known);
  }
  for (const std::string& folder : wanted) {
    const int watch = ::inotify_add_watch(fd_.get(), folder.c_str(), changes);
    if (watch < 0 && errno != ENOENT && errno != ENOTDIR)
      return base::fail_errno(errno, fmt::format("watch '{}'", folder));
    if (watch >= 0) folders_[watch] = folder;
  }
  return {};
}

bool FileWatch::take() {
  bool changed = false;
  alignas(inotify_event) char buffer[16 * 1024];
  for (;;) {
    const ssize_t count = ::read(fd_.get(), buffer, sizeof buffer);
    if (count <= 0) return changed;
    for (size_t at = 0; at < static_cast<size_t>(count);) {
      inotify_event event{};
      std::memcpy(&event, buffer + at, sizeof event);
      const char* name = buffer + at + sizeof event;
      const auto folder = folders_.find(event.wd);
      // Of an overflow nobody knows what is lost: better look once too often.
      if ((event.mask & IN_Q_OVERFLOW) != 0) changed = true;
      if (folder != folders_.end() && event.len > 0)
        changed =
            changed || files_.contains((std::filesystem::path(folder->second) / name).string());
      at += sizeof event + event.len;
    }
  }
}

}  // namespace cli
