/// The part of a seed (seed.h) that lives in QEMU's process: preloaded, it takes over between the
/// loading of QEMU's libraries and QEMU's first line, where the process has one thread and has
/// read nothing of its arguments. There it waits for orders and forks; each child confines itself
/// as `container-launch` would, and then goes on as the QEMU it was told to be.

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <string>
#include <vector>

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "runtime/launch/confine.h"
#include "runtime/seed/message.h"

namespace {

using base::ErrorCode;
using base::Result;
using runtime::seed_descriptors_max;
using runtime::SeedOrder;

/// Where `ps` and later daemons read a process's arguments.
struct ArgumentArea {
  char* begin = nullptr;
  size_t bytes = 0;
};

struct Received {
  std::string text;
  std::vector<int> descriptors;
};

/// Empty descriptors: there is nobody to wait for any more.
Received receive() {
  Received received;
  received.text.resize(runtime::seed_words_bytes_max);
  iovec bytes{received.text.data(), received.text.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(seed_descriptors_max * sizeof(int))> control;
  msghdr message{};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t count = 0;
  do {
    count = ::recvmsg(runtime::seed_socket, &message, MSG_CMSG_CLOEXEC);
  } while (count < 0 && errno == EINTR);
  if (count <= 0) return {};
  received.text.resize(static_cast<size_t>(count));
  for (cmsghdr* each = CMSG_FIRSTHDR(&message); each; each = CMSG_NXTHDR(&message, each)) {
    if (each->cmsg_level != SOL_SOCKET || each->cmsg_type != SCM_RIGHTS) continue;
    const size_t size = (each->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    received.descriptors.resize(size);
    std::memcpy(received.descriptors.data(), CMSG_DATA(each), size * sizeof(int));
  }
  return received;
}

/// Returns where the daemon is talked to. Everything that was not given is closed.
Result<base::UniqueFd> take_places(const std::vector<int>& given, const std::vector<int>& numbers) {
  if (given.size() != numbers.size() + 1)
    return base::fail(ErrorCode::Internal, "{} descriptors with {} numbers", given.size(),
                      numbers.size());
  const int highest = std::max(2, *std::max_element(numbers.begin(), numbers.end()));
  // All are lifted above the numbers they land on, so that none takes another's place too early.
  std::vector<int> lifted;
  for (const int fd : given) lifted.push_back(::fcntl(fd, F_DUPFD_CLOEXEC, highest + 1));
  const int null = ::fcntl(::open("/dev/null", O_RDWR), F_DUPFD_CLOEXEC, highest + 1);
  ::syscall(SYS_close_range, 0U, static_cast<unsigned>(highest), 0U);
  for (int fd = 0; fd <= 2; ++fd) ::dup2(null, fd);
  for (size_t i = 0; i < numbers.size(); ++i)
    if (::dup2(lifted[i + 1], numbers[i]) < 0) return base::fail_errno(errno, "take descriptors");
  for (size_t i = 1; i < lifted.size(); ++i) ::close(lifted[i]);
  ::close(null);
  return base::UniqueFd(lifted.front());
}

void show_words(const ArgumentArea& area, const std::vector<std::string>& words) {
  std::memset(area.begin, 0, area.bytes);
  size_t at = 0;
  for (const std::string& word : words) {
    if (at + word.size() + 1 >= area.bytes) return;
    std::memcpy(area.begin + at, word.data(), word.size());
    at += word.size() + 1;
  }
}

/// In the child. Its words, once it is confined; or it ends.
std::vector<std::string> become(const Received& received, const ArgumentArea& area) {
  ::setsid();
  ::signal(SIGCHLD, SIG_DFL);
  const SeedOrder order = runtime::decode_seed_order(received.text);
  if (order.words.empty() || order.numbers.empty()) ::_exit(127);
  const auto report = take_places(received.descriptors, order.numbers);
  if (!report) ::_exit(127);
  const auto begin = [&]() -> Result<std::vector<std::string>> {
    runtime::LaunchRequest request = TRY(runtime::parse_launch(order.words));
    TRY(runtime::confine(request));
    // A change of user takes this away, as a program that is started anew has it again.
    if (::prctl(PR_SET_DUMPABLE, 1) != 0) return base::fail_errno(errno, "stay readable");
    return std::move(request.program);
  };
  Result<std::vector<std::string>> words = begin();
  if (!words) {
    (void)base::write_all(report->get(), words.error().to_string());
    ::_exit(127);
  }
  // A daemon that has given this order up hangs up, and then nobody may become a machine.
  char go[runtime::seed_child_go.size()];
  if (!base::write_all(report->get(), runtime::seed_child_ready) ||
      base::read_some(report->get(), go).value_or(0) == 0)
    ::_exit(127);
  show_words(area, *words);
  return std::move(*words);
}

/// Returns in each machine, never in the seed.
std::vector<std::string> serve(const ArgumentArea& area) {
  ::signal(SIGCHLD, SIG_IGN);  // Their ends are watched by the daemon.
  for (;;) {
    const Received received = receive();
    if (received.descriptors.empty()) ::_exit(0);
    const pid_t child = ::fork();
    if (child == 0) return become(received, area);
    for (const int fd : received.descriptors) ::close(fd);
    const std::string answer = std::to_string(child);
    if (::send(runtime::seed_socket, answer.data(), answer.size(), MSG_NOSIGNAL) < 0) ::_exit(0);
  }
}

using Main = int (*)(int, char**, char**);
using Start = int (*)(Main, int, char**, void (*)(), void (*)(), void (*)(), void*);

}  // namespace

// NOLINTBEGIN: the name and the shape are the C library's.
extern "C" __attribute__((visibility("default"))) int __libc_start_main(
    Main main, int count, char** values, void (*init)(), void (*fini)(), void (*rtld_fini)(),
    void* stack_end) {
  const auto start = reinterpret_cast<Start>(::dlsym(RTLD_NEXT, "__libc_start_main"));
  if (start == nullptr) ::_exit(127);
  if (count != 2 || !std::string_view(values[1]).starts_with(runtime::seed_mark))
    return start(main, count, values, init, fini, rtld_fini, stack_end);
  const ArgumentArea area{values[0], std::strlen(values[0]) + std::strlen(values[1]) + 2};
  // For the life of the process, which is that of the call below.
  static std::vector<std::string> words;
  static std::vector<char*> pointers;
  words = serve(area);
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  return start(main, static_cast<int>(words.size()), pointers.data(), init, fini, rtld_fini,
               stack_end);
}
// NOLINTEND
