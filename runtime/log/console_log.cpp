#include "runtime/log/console_log.h"

#include <chrono>
#include <cstdio>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"

namespace runtime {
namespace {

constexpr auto cancel_check = std::chrono::milliseconds(200);

uint64_t size_of(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 ? static_cast<uint64_t>(info.st_size) : 0;
}

}  // namespace

void ConsoleLog::measure() {
  if (measured_) return;
  old_bytes_ = size_of(path_ + ".old");
  new_bytes_ = size_of(path_);
  measured_ = true;
}

void ConsoleLog::append(std::string_view bytes) {
  const std::lock_guard lock(mutex_);
  measure();
  if (new_bytes_ + bytes.size() > bytes_max_ / 2) {
    ::rename(path_.c_str(), (path_ + ".old").c_str());
    dropped_ += old_bytes_;
    old_bytes_ = new_bytes_;
    new_bytes_ = 0;
  }
  const auto file = base::open_file(path_, O_WRONLY | O_CREAT | O_APPEND);
  if (!file || !base::write_all(file->get(), bytes)) return;
  new_bytes_ += bytes.size();
  changed_.notify_all();
}

void ConsoleLog::restart() {
  const std::lock_guard lock(mutex_);
  ::unlink(path_.c_str());
  ::unlink((path_ + ".old").c_str());
  dropped_ += old_bytes_ + new_bytes_;
  old_bytes_ = 0;
  new_bytes_ = 0;
  measured_ = true;
}

/// From byte `from`, counted since the first one ever; what is gone is left out.
std::string ConsoleLog::load(uint64_t from) const {
  std::string all = base::read_file(path_ + ".old", bytes_max_).value_or("");
  all += base::read_file(path_, bytes_max_).value_or("");
  const uint64_t skip = from > dropped_ ? from - dropped_ : 0;
  return skip >= all.size() ? std::string() : all.substr(skip);
}

std::string ConsoleLog::tail(uint64_t bytes_max) const {
  const std::lock_guard lock(mutex_);
  std::string all = load(0);
  return all.size() <= bytes_max ? all : all.substr(all.size() - bytes_max);
}

base::Result<> ConsoleLog::read(bool follow, const std::function<bool()>& cancelled,
                                const std::function<bool(std::string_view)>& sink) {
  uint64_t at = 0;
  for (;;) {
    std::string piece;
    {
      std::unique_lock lock(mutex_);
      measure();
      at = std::max(at, dropped_);
      while (follow && at >= dropped_ + old_bytes_ + new_bytes_) {
        if (cancelled && cancelled())
          return base::fail(base::ErrorCode::Cancelled, "reading the boot log was cancelled");
        changed_.wait_for(lock, cancel_check);
        at = std::max(at, dropped_);
      }
      piece = load(at);
    }
    at += piece.size();
    if (!piece.empty() && !sink(piece)) return {};
    if (!follow) return {};
  }
}

}  // namespace runtime
