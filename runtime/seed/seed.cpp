#include "runtime/seed/seed.h"

#include <cerrno>
#include <csignal>

#include <sys/socket.h>

#include "base/deadline.h"
#include "base/limits.h"
#include "runtime/launch/environment.h"
#include "runtime/seed/message.h"

namespace runtime {
namespace {

using base::Deadline;
using base::Result;
using base::UniqueFd;

/// More than the words of any machine: they are written over it.
constexpr size_t padding_bytes = 16u << 10;

}  // namespace

Seed::~Seed() {
  const std::lock_guard lock(mutex_);
  end();
}

/// It ends by itself when nobody holds the other end of its socket.
void Seed::end() {
  if (!socket_) return;
  socket_.reset();
  const auto pidfd = base::open_process(process_);
  if (!pidfd) return;
  const auto ended = base::await_process(pidfd->get(), process_.pid,
                                         Deadline::in_ms(base::limits::vm_exit_timeout_ms));
  if (ended) return;
  (void)base::signal_process(pidfd->get(), SIGKILL);
  (void)base::await_process(pidfd->get(), process_.pid,
                            Deadline::in_ms(base::limits::vm_exit_timeout_ms));
}

Result<> Seed::start() {
  end();
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return base::fail_errno(errno, "socketpair");
  UniqueFd ours(ends[0]);
  const UniqueFd theirs(ends[1]);
  process_ =
      TRY(base::spawn({.arguments = {options_.program, seed_mark + std::string(padding_bytes, '-')},
                       .environment = launch_environment(options_.system, options_.library),
                       .descriptors = {{theirs.get(), seed_socket}}}));
  socket_ = std::move(ours);
  return {};
}

Result<> Seed::prepare() {
  const std::lock_guard lock(mutex_);
  return socket_ ? Result<>() : start();
}

Result<base::ProcessIdentity> Seed::spawn(const SeedRequest& request) {
  return let_go(TRY(order_anew(request)));
}

/// A seed that does not answer is replaced once.
Result<Ordered> Seed::order_anew(const SeedRequest& request) {
  const std::lock_guard lock(mutex_);
  if (!socket_) TRY(start());
  Result<Ordered> ordered = order_machine(socket_.get(), request);
  if (ordered) return ordered;
  TRY(start());
  ordered = order_machine(socket_.get(), request);
  if (!ordered) end();
  return ordered;
}

}  // namespace runtime
