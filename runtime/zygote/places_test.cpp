#include "runtime/zygote/places.h"

#include <array>
#include <string>
#include <utility>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "runtime/qemu/config.h"

using runtime::qemu::Descriptor;

namespace {

constexpr int taken_first = 3;
constexpr int taken_end = 32;
constexpr unsigned patience_s = 20;

/// What `work` returns, in a process that has nothing open but what it opens.
template <class Work>
int in_fresh_process(Work work) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(patience_s);
    for (int fd = taken_first; fd < 256; ++fd) ::close(fd);
    ::_exit(work());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/// A file of that content whose descriptor is `at`.
int file_with(const std::string& content, int at) {
  const int made = ::memfd_create("content", MFD_CLOEXEC);
  (void)!::write(made, content.data(), content.size());
  const int moved = ::fcntl(made, F_DUPFD_CLOEXEC, at);
  ::close(made);
  return moved;
}

std::string content_of(int fd) {
  char text[16];
  const ssize_t count = ::pread(fd, text, sizeof text, 0);
  return {text, count > 0 ? static_cast<size_t>(count) : 0};
}

}  // namespace

TEST_CASE("what is given takes its place, and that of every copy made since") {
  CHECK(in_fresh_process([] {
          const int place = file_with("old", Descriptor::scratch);
          if (!runtime::remember_places({place})) return 1;
          const int copy = ::fcntl(place, F_DUPFD_CLOEXEC, taken_end + 8);
          ::close(place);  // As QEMU does once it has a copy.
          const int other = file_with("other", taken_end + 16);
          const int given = file_with("new", taken_end + 24);
          if (!runtime::replace_descriptors({{.ours = given, .number = Descriptor::scratch}}, -1))
            return 2;
          if (content_of(copy) != "new" || content_of(other) != "other") return 3;
          return ::fcntl(given, F_GETFD) < 0 ? 0 : 4;
        }) == 0);
}

TEST_CASE("the two ends of a pipe are told apart") {
  CHECK(in_fresh_process([] {
          int ends[2];
          if (::pipe(ends) != 0) return 1;
          const int reader = ::fcntl(ends[0], F_DUPFD_CLOEXEC, taken_end + 8);
          const int writer = ::fcntl(ends[1], F_DUPFD_CLOEXEC, taken_end + 9);
          if (::pipe(ends) != 0) return 1;
          ::dup2(ends[0], Descriptor::console_hold);
          ::dup2(ends[1], Descriptor::console);
          if (!runtime::remember_places({Descriptor::console, Descriptor::console_hold})) return 2;
          if (!runtime::replace_descriptors({{.ours = reader, .number = Descriptor::console_hold},
                                             {.ours = writer, .number = Descriptor::console}},
                                            -1))
            return 3;
          (void)!::write(Descriptor::console, "x", 1);
          char byte = 0;
          return ::read(Descriptor::console_hold, &byte, 1) == 1 && byte == 'x' ? 0 : 4;
        }) == 0);
}

TEST_CASE("events are a process's own, with the count they had") {
  CHECK(in_fresh_process([] {
          const int event = ::eventfd(3, EFD_NONBLOCK | EFD_CLOEXEC);
          const int kept = ::fcntl(event, F_DUPFD_CLOEXEC, taken_end + 8);
          const int polled = ::epoll_create1(EPOLL_CLOEXEC);
          const int polled_before = ::fcntl(polled, F_DUPFD_CLOEXEC, taken_end + 9);
          if (!runtime::replace_descriptors({}, kept)) return 1;
          eventfd_t count = 0;
          if (::eventfd_write(event, 2) != 0) return 2;
          if (::eventfd_read(kept, &count) != 0 || count != 3) return 3;
          if (::eventfd_read(event, &count) != 0 || count != 5) return 4;
          if (::eventfd_read(event, &count) == 0) return 5;  // It does not block either.
          // Each of the two is a set of its own.
          epoll_event wanted{.events = EPOLLIN, .data = {}};
          if (::epoll_ctl(polled, EPOLL_CTL_ADD, event, &wanted) != 0) return 6;
          return ::epoll_ctl(polled_before, EPOLL_CTL_ADD, event, &wanted) == 0 ? 0 : 7;
        }) == 0);
}

TEST_CASE("connections are broken off, what listens goes on") {
  CHECK(in_fresh_process([] {
          int ends[2];
          if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return 1;
          const int listening = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
          sockaddr address{};
          address.sa_family = AF_UNIX;
          if (::bind(listening, &address, sizeof address.sa_family) != 0 ||
              ::listen(listening, 1) != 0)
            return 2;
          if (!runtime::replace_descriptors({}, ends[1])) return 3;
          char byte = 0;
          if (::read(ends[0], &byte, 1) != 0) return 4;
          int listens = 0;
          socklen_t size = sizeof listens;
          ::getsockopt(listening, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size);
          return listens == 1 ? 0 : 5;
        }) == 0);
}

TEST_CASE("what cannot be made anew is an error") {
  CHECK(in_fresh_process([] {
          if (::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC) < 0) return 1;
          const auto replaced = runtime::replace_descriptors({}, -1);
          if (replaced || replaced.error().code() != base::ErrorCode::Unsupported) return 2;
          return runtime::replace_descriptors({{.ours = 0, .number = Descriptor::scratch}}, 3) ? 3
                                                                                               : 0;
        }) == 0);
}
