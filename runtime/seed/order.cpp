#include "runtime/seed/order.h"

#include <cerrno>
#include <charconv>
#include <cstring>

#include <poll.h>
#include <sys/socket.h>

#include "base/deadline.h"
#include "base/limits.h"
#include "runtime/seed/message.h"

namespace runtime {
namespace {

using base::Deadline;
using base::ErrorCode;
using base::fail;
using base::Result;

Result<> send_order(int socket, const std::string& text, const std::vector<int>& descriptors) {
  iovec bytes{const_cast<char*>(text.data()), text.size()};
  std::vector<char> control(CMSG_SPACE(descriptors.size() * sizeof(int)));
  msghdr message{};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
  std::memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size() * sizeof(int));
  if (::sendmsg(socket, &message, MSG_NOSIGNAL) < 0)
    return base::fail_errno(errno, "order a machine from the seed");
  return {};
}

Result<> await_readable(int fd, const Deadline& deadline) {
  for (;;) {
    pollfd waited{fd, POLLIN, 0};
    const int ready = ::poll(&waited, 1, deadline.remaining_ms());
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return base::fail_errno(errno, "wait for the seed");
    if (ready == 0) return fail(ErrorCode::Timeout, "the seed does not answer");
  }
}

}  // namespace

Result<Ordered> order_machine(int socket, const SeedRequest& request) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return base::fail_errno(errno, "socketpair");
  Ordered ordered{.pid = -1, .talk = base::UniqueFd(ends[0])};
  const base::UniqueFd theirs(ends[1]);
  SeedOrder made{.numbers = {}, .parts = request.parts, .words = request.words};
  std::vector<int> given{theirs.get()};
  for (const auto& [ours, number] : request.descriptors) {
    given.push_back(ours);
    made.numbers.push_back(number);
  }
  const std::string text = encode_seed_order(made);
  if (text.size() > seed_words_bytes_max || given.size() > seed_descriptors_max)
    return fail(ErrorCode::Internal, "too much for one message to the seed");
  TRY(send_order(socket, text, given));
  TRY(await_readable(socket, Deadline::in_ms(base::limits::vm_exit_timeout_ms)));
  char answer[32];
  const ssize_t count = ::recv(socket, answer, sizeof answer, 0);
  if (count > 0) std::from_chars(answer, answer + count, ordered.pid);
  if (ordered.pid <= 0) return fail(ErrorCode::Io, "the seed has gone, or could not fork");
  return ordered;
}

Result<base::ProcessIdentity> let_go(Ordered ordered) {
  const int talk = ordered.talk.get();
  char text[512];
  TRY(await_readable(talk, Deadline::in_ms(base::limits::vm_exit_timeout_ms)));
  const size_t count = TRY(base::read_some(talk, text));
  if (const std::string_view said(text, count); said != seed_child_ready)
    return fail(ErrorCode::Io, "a machine cannot be made from the seed: {}",
                said.empty() ? "it ended" : said);
  const base::ProcessIdentity process = TRY(base::identify_process(ordered.pid));
  // Whatever fails before this ends the child: nobody else would know of it.
  TRY(base::write_all(talk, seed_child_go));
  return process;
}

}  // namespace runtime
