/// The part of a seed (seed.h) that lives in QEMU's process: preloaded, it takes over between the
/// loading of QEMU's libraries and QEMU's first line, where the process has one thread and has
/// read nothing of its arguments. There it waits for orders and forks; each child confines itself
/// as `container-launch` would, and then goes on as the QEMU it was told to be.
///
/// A child that is given `Descriptor::orders` becomes a zygote (zygote/zygote.h): it is not
/// confined, and a thread of its own waits for further orders, forks the whole process as it then
/// is, and confines each child before it runs.

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
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "runtime/launch/confine.h"
#include "runtime/qemu/config.h"
#include "runtime/seed/message.h"
#include "runtime/zygote/fork_threads.h"
#include "runtime/zygote/places.h"
#include "runtime/zygote/replaced.h"

namespace {

using base::ErrorCode;
using base::Result;
using runtime::seed_descriptors_max;
using runtime::SeedOrder;

constexpr const char* zygote_words = "--seed=rehearsed";

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
Received receive(int socket) {
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
    count = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
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

bool is_zygote(const SeedOrder& order) {
  return std::find(order.numbers.begin(), order.numbers.end(), runtime::qemu::Descriptor::orders) !=
         order.numbers.end();
}

/// `descriptor_of`: where what is to have a number is open.
template <class DescriptorOf>
void join_image(const SeedOrder& order, DescriptorOf descriptor_of) {
  std::vector<runtime::JoinedPart> parts;
  for (const runtime::SeedPart& part : order.parts)
    parts.push_back({.first_byte = part.first_sector * runtime::seed_sector_bytes,
                     .bytes = part.sectors * runtime::seed_sector_bytes,
                     .descriptor = descriptor_of(part.number)});
  runtime::join_image(descriptor_of(runtime::qemu::Descriptor::table), std::move(parts));
}

Result<> confine_readably(const runtime::LaunchRequest& request) {
  TRY(runtime::confine(request));
  // A change of user takes this away, as a program that is started anew has it again.
  if (::prctl(PR_SET_DUMPABLE, 1) != 0) return base::fail_errno(errno, "stay readable");
  return {};
}

/// A daemon that has given an order up hangs up, and then nobody may become a machine.
bool told_to_go(int talk) {
  char go[runtime::seed_child_go.size()];
  return base::write_all(talk, runtime::seed_child_ready) &&
         base::read_some(talk, go).value_or(0) > 0;
}

/// In a child of a zygote, where nothing else runs yet.
Result<> become_twin(const Received& received, const SeedOrder& order, const ArgumentArea& area) {
  if (received.descriptors.size() != order.numbers.size() + 1)
    return base::fail(ErrorCode::Internal, "{} descriptors with {} numbers",
                      received.descriptors.size(), order.numbers.size());
  const runtime::LaunchRequest request = TRY(runtime::parse_launch(order.words));
  std::vector<runtime::GivenDescriptor> given;
  for (size_t i = 0; i < order.numbers.size(); ++i)
    given.push_back({.ours = received.descriptors[i + 1], .number = order.numbers[i]});
  ::close(runtime::qemu::Descriptor::orders);
  join_image(order, [&](int number) {
    const auto found = std::find(order.numbers.begin(), order.numbers.end(), number);
    return found == order.numbers.end()
               ? -1
               : given[static_cast<size_t>(found - order.numbers.begin())].ours;
  });
  TRY(runtime::replace_descriptors(given, received.descriptors.front()));
  TRY(confine_readably(request));
  TRY(runtime::enter_sandbox());
  show_words(area, request.program);
  return {};
}

bool begin_twin(const Received& received, const ArgumentArea& area) {
  ::setsid();
  const SeedOrder order = runtime::decode_seed_order(received.text);
  if (order.words.empty() || order.numbers.empty()) return false;
  const base::UniqueFd talk(received.descriptors.front());
  const Result<> begun = become_twin(received, order, area);
  if (!begun) (void)base::write_all(talk.get(), begun.error().to_string());
  return begun && told_to_go(talk.get());
}

/// A zygote's own thread.
[[noreturn]] void bear(const ArgumentArea& area) {
  constexpr int tries_max = 64;  // QEMU's threads may have something to do for a moment.
  for (;;) {
    const Received received = receive(runtime::qemu::Descriptor::orders);
    if (received.descriptors.empty()) ::_exit(0);
    Result<pid_t> child = runtime::fork_with_threads([&] { return begin_twin(received, area); });
    for (int i = 1; i < tries_max && !child; ++i) {
      ::sched_yield();
      child = runtime::fork_with_threads([&] { return begin_twin(received, area); });
    }
    if (!child) (void)base::write_all(received.descriptors.front(), child.error().to_string());
    for (const int fd : received.descriptors) ::close(fd);
    const std::string answer = std::to_string(child.value_or(-1));
    if (::send(runtime::qemu::Descriptor::orders, answer.data(), answer.size(), MSG_NOSIGNAL) < 0)
      ::_exit(0);
  }
}

Result<> become_zygote(const SeedOrder& order, const ArgumentArea& area) {
  static ArgumentArea words;
  words = area;
  TRY(runtime::remember_places(order.numbers));
  join_image(order, [](int number) { return number; });
  runtime::begin_to_replace();
  runtime::prepare_to_fork_threads();
  // It takes no signals but those that end the process.
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, &before);
  pthread_t thread;
  const int failed = ::pthread_create(
      &thread, nullptr, [](void*) -> void* { bear(words); }, nullptr);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (failed != 0) return base::fail_errno(failed, "make a thread");
  return {};
}

/// In the child. Its words, once it is confined; or it ends.
std::vector<std::string> become(const Received& received, const ArgumentArea& area) {
  ::setsid();
  const SeedOrder order = runtime::decode_seed_order(received.text);
  if (order.words.empty() || order.numbers.empty()) ::_exit(127);
  const auto talk = take_places(received.descriptors, order.numbers);
  if (!talk) ::_exit(127);
  const auto begin = [&]() -> Result<std::vector<std::string>> {
    runtime::LaunchRequest request = TRY(runtime::parse_launch(order.words));
    if (is_zygote(order))
      TRY(become_zygote(order, area));
    else
      TRY(confine_readably(request));
    return std::move(request.program);
  };
  Result<std::vector<std::string>> words = begin();
  if (!words) {
    (void)base::write_all(talk->get(), words.error().to_string());
    ::_exit(127);
  }
  if (!told_to_go(talk->get())) ::_exit(127);
  // A zygote is no machine: it shows itself as what machines are forked from.
  show_words(area,
             is_zygote(order) ? std::vector{words->front(), std::string(zygote_words)} : *words);
  return std::move(*words);
}

/// Returns in each machine, never in the seed.
std::vector<std::string> serve(const ArgumentArea& area) {
  ::signal(SIGCHLD, SIG_IGN);  // Their ends are watched by the daemon.
  for (;;) {
    const Received received = receive(runtime::seed_socket);
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
