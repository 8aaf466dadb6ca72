#include "runtime/zygote/places.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <string>

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "runtime/qemu/config.h"
#include "runtime/zygote/replaced.h"

namespace runtime {
namespace {

using base::ErrorCode;
using base::fail;
using base::fail_errno;
using base::Result;
using base::UniqueFd;

struct Open {
  int fd = -1;
  struct stat facts {};
  int access = 0;    ///< O_RDONLY and its kin: the ends of a pipe differ in nothing else.
  std::string what;  ///< As /proc shows it.
};

/// What the numbers stood for.
std::vector<Open> places;

bool look_at(Open& each) {
  each.access = ::fcntl(each.fd, F_GETFL) & O_ACCMODE;
  return ::fstat(each.fd, &each.facts) == 0;
}

Result<std::vector<Open>> open_descriptors() {
  std::vector<Open> all;
  std::error_code error;
  std::vector<std::string> names;
  for (std::filesystem::directory_iterator at("/proc/self/fd", error), end; !error && at != end;
       at.increment(error))
    names.push_back(at->path().filename());
  if (error) return fail(ErrorCode::Io, "list descriptors: {}", error.message());
  for (const std::string& name : names) {
    Open each;
    std::from_chars(name.data(), name.data() + name.size(), each.fd);
    if (!look_at(each)) continue;  // The listing's own.
    char target[128];
    const ssize_t count = ::readlink(("/proc/self/fd/" + name).c_str(), target, sizeof target);
    if (count > 0) each.what.assign(target, static_cast<size_t>(count));
    all.push_back(std::move(each));
  }
  return all;
}

/// With what QEMU had set on the one that was there.
Result<> put(int fd, int place) {
  const int flags = ::fcntl(place, F_GETFL) & (O_NONBLOCK | O_APPEND);
  if (::fcntl(fd, F_SETFL, (::fcntl(fd, F_GETFL) & ~(O_NONBLOCK | O_APPEND)) | flags) < 0 ||
      ::dup3(fd, place, O_CLOEXEC) < 0)
    return fail_errno(errno, "take a descriptor's place");
  return {};
}

bool is_tap(int number) {
  return number >= qemu::Descriptor::nic_first && number < qemu::Descriptor::memory;
}

Result<> take_place(const GivenDescriptor& given, const std::vector<Open>& all) {
  if (is_tap(given.number)) {
    // All of them are open on one device: only the number tells them apart.
    TRY(settings_like(given.number, given.ours));
    return put(given.ours, given.number);
  }
  const auto place = std::find_if(places.begin(), places.end(),
                                  [&](const Open& each) { return each.fd == given.number; });
  if (place == places.end()) return fail(ErrorCode::Internal, "there is no place {}", given.number);
  for (const Open& each : all)
    if (each.facts.st_dev == place->facts.st_dev && each.facts.st_ino == place->facts.st_ino &&
        each.access == place->access)
      TRY(put(given.ours, each.fd));
  return {};
}

/// An event that is shared would wake one machine with what is meant for another.
Result<> renew_event(const Open& each) {
  const std::string facts =
      TRY(base::read_file("/proc/self/fdinfo/" + std::to_string(each.fd), 4096));
  constexpr std::string_view mark = "eventfd-count:";
  const size_t at = facts.find(mark);
  if (at == std::string::npos) return fail(ErrorCode::Internal, "an event without a count");
  const size_t digits = facts.find_first_not_of(" \t", at + mark.size());
  unsigned count = 0;
  std::from_chars(facts.data() + digits, facts.data() + facts.size(), count, 16);
  const int flags = ::fcntl(each.fd, F_GETFL) & O_NONBLOCK;
  const UniqueFd made(::eventfd(count, EFD_CLOEXEC | (flags != 0 ? EFD_NONBLOCK : 0)));
  if (!made) return fail_errno(errno, "eventfd");
  return put(made.get(), each.fd);
}

/// Whoever was connected has left, as far as the child sees.
Result<> break_connection(const Open& each) {
  int listens = 0;
  socklen_t size = sizeof listens;
  if (::getsockopt(each.fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || listens != 0)
    return {};
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
    return fail_errno(errno, "socketpair");
  const UniqueFd one(ends[0]);
  const UniqueFd other(ends[1]);
  return put(one.get(), each.fd);
}

Result<> renew(const Open& each) {
  if (each.what == "anon_inode:[eventfd]") return renew_event(each);
  if (each.what == "anon_inode:[eventpoll]") {
    const UniqueFd made(::epoll_create1(EPOLL_CLOEXEC));
    if (!made) return fail_errno(errno, "epoll_create1");
    return put(made.get(), each.fd);
  }
  if (each.what == "anon_inode:[signalfd]") return {};  // Each process reads its own signals.
  if (each.what.starts_with("anon_inode:"))
    return fail(ErrorCode::Unsupported, "'{}' cannot be made anew", each.what);
  return S_ISSOCK(each.facts.st_mode) ? break_connection(each) : Result<>();
}

}  // namespace

Result<> remember_places(const std::vector<int>& numbers) {
  for (const int number : numbers) {
    Open place;
    place.fd = number;
    if (!look_at(place)) return fail_errno(errno, "look at a descriptor");
    places.push_back(std::move(place));
  }
  return {};
}

Result<> replace_descriptors(const std::vector<GivenDescriptor>& given, int kept) {
  std::vector<Open> all = TRY(open_descriptors());
  std::erase_if(all, [&](const Open& each) {
    return each.fd == kept ||
           std::any_of(given.begin(), given.end(),
                       [&](const GivenDescriptor& one) { return one.ours == each.fd; });
  });
  for (const Open& each : all) TRY(renew(each));
  for (const GivenDescriptor& one : given) {
    if (one.number >= qemu::Descriptor::layer_first) continue;
    TRY(take_place(one, all));
    ::close(one.ours);
  }
  return {};
}

}  // namespace runtime
