#include "api/lock.h"

#include <cerrno>
#include <string_view>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/file.h"

namespace api {

base::Result<base::UniqueFd> lock_app_root(const std::string& app_root) {
  const std::string path = app_root + "/lock";
  base::UniqueFd file = TRY(base::open_file(path, O_RDWR | O_CREAT));
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return base::fail_errno(errno, fmt::format("lock '{}'", path));
    std::string holder = base::read_file(path, 64).value_or("");
    while (!holder.empty() && holder.back() == '\n') holder.pop_back();
    return base::fail(base::ErrorCode::Busy,
                      "a daemon (pid {}) already runs for '{}'; 'container system stop' ends it",
                      holder.empty() ? "unknown" : holder, app_root);
  }
  const std::string pid = fmt::format("{}\n", ::getpid());
  // On a full disk the name of the holder is lost, the lock is not.
  if (::ftruncate(file.get(), 0) == 0) (void)base::write_all(file.get(), pid).has_value();
  return file;
}

}  // namespace api
