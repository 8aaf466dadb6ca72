#include "network/message.h"

#include <cerrno>
#include <cstring>

#include <poll.h>
#include <sys/socket.h>
#include <nlohmann/json.hpp>

#include "base/json.h"

namespace network {
namespace {

using base::ErrorCode;
using base::fail;
using base::fail_errno;

void take_descriptors(msghdr& header, Message& message) {
  for (cmsghdr* control = CMSG_FIRSTHDR(&header); control;
       control = CMSG_NXTHDR(&header, control)) {
    if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(control) + i * sizeof fd, sizeof fd);
      message.descriptors.emplace_back(fd);
    }
  }
}

}  // namespace

base::Result<> send_message(int socket, std::string_view line,
                            const std::vector<int>& descriptors) {
  if (descriptors.size() > message_descriptors_max)
    return fail(ErrorCode::Internal, "too many descriptors for one message");
  std::string bytes(line);
  bytes += '\n';
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * message_descriptors_max)] = {};
  std::string_view rest(bytes);
  bool first = true;
  while (!rest.empty()) {
    iovec piece{const_cast<char*>(rest.data()), rest.size()};
    msghdr header{};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    if (first && !descriptors.empty()) {
      header.msg_control = control;
      header.msg_controllen = CMSG_SPACE(sizeof(int) * descriptors.size());
      cmsghdr* head = CMSG_FIRSTHDR(&header);
      head->cmsg_level = SOL_SOCKET;
      head->cmsg_type = SCM_RIGHTS;
      head->cmsg_len = CMSG_LEN(sizeof(int) * descriptors.size());
      std::memcpy(CMSG_DATA(head), descriptors.data(), sizeof(int) * descriptors.size());
    }
    const ssize_t sent = ::sendmsg(socket, &header, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return fail_errno(errno, "send");
    rest.remove_prefix(static_cast<size_t>(sent));
    first = false;
  }
  return {};
}

base::Result<bool> receive_some(int socket, Message& message) {
  char buffer[16384];
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * message_descriptors_max)];
  iovec piece{buffer, sizeof buffer};
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  const ssize_t count = ::recvmsg(socket, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (count < 0) {
    if (errno == EINTR || errno == EAGAIN) return false;
    return fail_errno(errno, "receive");
  }
  take_descriptors(header, message);
  if (message.descriptors.size() > message_descriptors_max)
    return fail(ErrorCode::InvalidArgument, "a message with too many descriptors");
  if (count == 0) return fail(ErrorCode::Io, "the other side hung up");
  message.text.append(buffer, static_cast<size_t>(count));
  if (message.text.size() > message_bytes_max)
    return fail(ErrorCode::InvalidArgument, "a message longer than {} bytes", message_bytes_max);
  const size_t end = message.text.find('\n');
  if (end == std::string::npos) return false;
  if (end + 1 != message.text.size())
    return fail(ErrorCode::InvalidArgument, "a second message before the first was answered");
  message.text.resize(end);
  return true;
}

base::Result<Message> receive_message(int socket, const base::Deadline& deadline) {
  Message message;
  for (;;) {
    pollfd waited{.fd = socket, .events = POLLIN, .revents = 0};
    const int ready = ::poll(&waited, 1, deadline.remaining_ms());
    if (ready == 0) return fail(ErrorCode::Timeout, "no answer in time");
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "poll");
    if (ready > 0 && TRY(receive_some(socket, message))) return message;
  }
}

base::Result<std::string> receive_line(int pipe, const base::Deadline& deadline) {
  std::string line;
  while (line.empty() || line.back() != '\n') {
    pollfd waited{.fd = pipe, .events = POLLIN, .revents = 0};
    const int ready = ::poll(&waited, 1, deadline.remaining_ms());
    if (ready == 0) return fail(ErrorCode::Timeout, "no answer in time");
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "poll");
    if (ready < 0) continue;
    char buffer[4096];
    const size_t count = TRY(base::read_some(pipe, buffer));
    if (count == 0) return fail(ErrorCode::Io, "it ended before it was ready; see its log");
    line.append(buffer, count);
    if (line.size() > message_bytes_max) return fail(ErrorCode::Io, "its answer is too long");
  }
  line.pop_back();
  return line;
}

std::string encode_success(std::string_view text) {
  return base::dump_json({{"ok", std::string(text)}});
}

std::string encode_success_json(std::string_view json) {
  return fmt::format("{{\"ok\":{}}}", json);
}

std::string encode_failure(const base::Error& error) {
  return base::dump_json(
      {{"error", {{"code", base::error_code_name(error.code())}, {"message", error.to_string()}}}});
}

base::Result<std::string> decode_reply(std::string_view line) {
  const nlohmann::json reply = TRY(base::parse_json(line));
  if (!reply.is_object()) return fail(ErrorCode::Io, "a reply that is no object");
  if (const auto error = reply.find("error"); error != reply.end() && error->is_object())
    return tl::unexpected(
        base::Error(base::error_code_from_name(base::json_string_or(*error, "code", "internal")),
                    base::json_string_or(*error, "message", "no reason was given")));
  const auto ok = reply.find("ok");
  if (ok == reply.end()) return fail(ErrorCode::Io, "a reply without a result");
  return ok->is_string() ? ok->get<std::string>() : base::dump_json(*ok);
}

}  // namespace network
