#include "cli/system_log.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <ctime>
#include <filesystem>

#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/limits.h"
#include "cli/console.h"

namespace cli {
namespace {

using base::Result;

constexpr int64_t second_ns = 1'000'000'000;

/// Prints what there is between here and the end.
Result<> copy_rest(int fd) {
  char buffer[64 * 1024];
  for (;;) {
    const size_t count = TRY(base::read_some(fd, buffer));
    if (count == 0) return {};
    TRY(print(printable(std::string_view(buffer, count))));
  }
}

bool is_same_file(int fd, const std::string& path) {
  struct stat open_file {};
  struct stat named_file {};
  return ::fstat(fd, &open_file) == 0 && ::stat(path.c_str(), &named_file) == 0 &&
         open_file.st_ino == named_file.st_ino && open_file.st_dev == named_file.st_dev;
}

Result<> follow_file(base::UniqueFd file, const std::string& path) {
  const base::UniqueFd watch(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  const std::string folder = std::filesystem::path(path).parent_path().string();
  constexpr uint32_t changes = IN_MODIFY | IN_CREATE | IN_MOVED_TO;
  if (!watch || ::inotify_add_watch(watch.get(), folder.c_str(), changes) < 0)
    return base::fail_errno(errno, fmt::format("watch '{}'", folder));
  for (;;) {
    TRY(copy_rest(file.get()));
    // Full, the file has been given another name, and a new one has its own.
    if (!is_same_file(file.get(), path)) {
      if (Result<base::UniqueFd> next = base::open_file(path, O_RDONLY)) {
        file = std::move(*next);
        continue;
      }
    }
    pollfd waiting{.fd = watch.get(), .events = POLLIN, .revents = 0};
    (void)::poll(&waiting, 1, -1);
    char events[4096];
    while (::read(watch.get(), events, sizeof events) > 0) {
      // Any of them is a reason to look.
    }
  }
}

}  // namespace

std::optional<int64_t> time_of_line(std::string_view line) {
  constexpr size_t time_bytes_max = 40;
  const std::string text(line.substr(0, time_bytes_max));
  std::tm parts{};
  int microseconds = 0;
  char sign = '+';
  int hours = 0;
  int minutes = 0;
  const int fields =
      std::sscanf(text.c_str(), "%4d-%2d-%2dT%2d:%2d:%2d.%6d%c%2d:%2d", &parts.tm_year,
                  &parts.tm_mon, &parts.tm_mday, &parts.tm_hour, &parts.tm_min, &parts.tm_sec,
                  &microseconds, &sign, &hours, &minutes);
  if (fields != 10) return std::nullopt;
  parts.tm_year -= 1900;
  parts.tm_mon -= 1;
  const int64_t offset_s = (sign == '-' ? -1 : 1) * (hours * 3600 + minutes * 60);
  return (static_cast<int64_t>(::timegm(&parts)) - offset_s) * second_ns + microseconds * 1000;
}

std::string_view lines_since(std::string_view text, int64_t since_ns) {
  for (size_t start = 0; start < text.size();) {
    const std::string_view rest = text.substr(start);
    const auto when = time_of_line(rest.substr(0, rest.find('\n')));
    if (when && *when >= since_ns) return rest;
    const size_t end = rest.find('\n');
    if (end == std::string_view::npos) break;
    start += end + 1;
  }
  return {};
}

Result<> show_system_log(const std::string& path, int64_t since_ns, bool follow) {
  const std::string older = std::filesystem::path(path).replace_extension(".1.log").string();
  constexpr uint64_t bytes_max = 2 * base::limits::log_segment_bytes_max;
  std::string text = base::read_file(older, bytes_max).value_or("");
  base::UniqueFd current = TRY(base::open_file(path, O_RDONLY));
  // Read through the descriptor that is followed, so that no line is shown twice or never.
  std::string buffer(64 * 1024, '\0');
  while (const size_t count = TRY(base::read_some(current.get(), buffer))) {
    text.append(buffer, 0, count);
    if (text.size() > bytes_max) text.erase(0, text.size() - bytes_max);
  }
  TRY(print(printable(lines_since(text, since_ns))));
  if (!follow) return {};
  return follow_file(std::move(current), path);
}

}  // namespace cli
