#include "runtime/template/orders.h"

#include <cerrno>
#include <cstring>
#include <vector>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/json.h"

namespace runtime {
namespace {

using base::Deadline;
using base::ErrorCode;
using base::fail;
using base::Result;
using nlohmann::json;

constexpr const char* state_name = "state";
constexpr size_t line_bytes_max = 1u << 20;

json capabilities() {
  const auto on = [](const char* name) { return json{{"capability", name}, {"state", true}}; };
  return {{"execute", "migrate-set-capabilities"},
          {"arguments", {{"capabilities", json::array({on("x-ignore-shared"), on("events")})}}}};
}

/// A guest that arrives is asked to announce itself on its network; ours has nothing to announce
/// yet, and its kernel can wait for itself for ever if its network is taken down meanwhile (6.12:
/// virtnet_close() waits, holding a lock, for work that wants that lock).
json parameters() {
  return {{"execute", "migrate-set-parameters"}, {"arguments", {{"announce-rounds", 0}}}};
}

std::string conversation(const char* last_command) {
  const json commands = json::array(
      {{{"execute", "qmp_capabilities"}},
       capabilities(),
       parameters(),
       {{"execute", "getfd"}, {"arguments", {{"fdname", state_name}}}},
       {{"execute", last_command}, {"arguments", {{"uri", std::string("fd:") + state_name}}}}});
  std::string text;
  for (const json& command : commands) text += base::dump_json(command) + "\n";
  return text;
}

/// All of `text` in one message. It is far shorter than a socket's buffer.
Result<> send_message(int socket, const msghdr& message, size_t size) {
  const ssize_t sent = ::sendmsg(socket, &message, MSG_NOSIGNAL);
  if (sent < 0) return base::fail_errno(errno, "give orders to QEMU");
  if (static_cast<size_t>(sent) != size)
    return fail(ErrorCode::Io, "QEMU's monitor took only a part of the orders");
  return {};
}

Result<> send_with_fd(int socket, const std::string& text, int fd) {
  iovec bytes{const_cast<char*>(text.data()), text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  return send_message(socket, message, text.size());
}

Result<> send_alone(int socket, const std::string& text) {
  iovec bytes{const_cast<char*>(text.data()), text.size()};
  msghdr message{};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  return send_message(socket, message, text.size());
}

class Lines {
 public:
  explicit Lines(int socket) : socket_(socket) {}

  Result<json> next(const Deadline& deadline) {
    for (;;) {
      if (const size_t end = pending_.find('\n'); end != std::string::npos) {
        Result<json> line = base::parse_json(std::string_view(pending_).substr(0, end));
        pending_.erase(0, end + 1);
        return line;
      }
      if (pending_.size() > line_bytes_max)
        return fail(ErrorCode::Io, "QEMU's monitor sent a line without end");
      TRY(read_more(deadline));
    }
  }

 private:
  Result<> read_more(const Deadline& deadline) {
    pollfd waiting{socket_, POLLIN, 0};
    const int ready = ::poll(&waiting, 1, deadline.remaining_ms());
    if (ready < 0 && errno != EINTR) return base::fail_errno(errno, "wait for QEMU");
    if (ready == 0) return fail(ErrorCode::Timeout, "QEMU did not save the guest in time");
    char buffer[4096];
    const ssize_t count = ::recv(socket_, buffer, sizeof buffer, MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return {};
    if (count < 0) return base::fail_errno(errno, "hear from QEMU");
    if (count == 0) return fail(ErrorCode::Io, "QEMU ended while the guest was saved");
    pending_.append(buffer, static_cast<size_t>(count));
    return {};
  }

  int socket_;
  std::string pending_;
};

/// When an event happened, on CLOCK_BOOTTIME; 0 for anything else.
int64_t event_ns(const json& line) {
  const auto stamp = line.find("timestamp");
  if (stamp == line.end() || !stamp->is_object()) return 0;
  const int64_t wall_ns = base::json_int_or(*stamp, "seconds", 0) * 1'000'000'000 +
                          base::json_int_or(*stamp, "microseconds", 0) * 1'000;
  return wall_ns - (base::wall_time_ns() - base::boottime_ns());
}

}  // namespace

std::vector<base::Span> spans_of_resume(int connection, int64_t begin_ns) {
  std::vector<base::Span> spans;
  Lines lines(connection);
  while (const Result<json> line = lines.next(Deadline::in_ms(0))) {
    if (!line->is_object()) continue;
    const int64_t at_ns = event_ns(*line);
    const std::string event = base::json_string_or(*line, "event", "");
    const char* what = nullptr;
    if (event == "MIGRATION" && spans.empty()) what = "QEMU comes up";
    if (event == "RESUME") what = "it runs";
    if (what == nullptr || at_ns == 0) continue;
    spans.push_back({.where = "qemu", .what = what, .begin_ns = begin_ns, .end_ns = at_ns});
    begin_ns = at_ns;
  }
  return spans;
}

Result<base::UniqueFd> order_resume(const std::string& monitor_socket, int state_fd) {
  base::UniqueFd socket = TRY(base::connect_unix(monitor_socket));
  TRY(send_with_fd(socket.get(), conversation("migrate-incoming"), state_fd));
  return socket;
}

Result<> stop_guest(int connection, const Deadline& deadline) {
  TRY(send_alone(connection, base::dump_json({{"execute", "stop"}}) + "\n"));
  Lines lines(connection);
  for (;;) {
    const json line = TRY(lines.next(deadline));
    if (!line.is_object()) continue;
    if (line.contains("error"))
      return fail(ErrorCode::Io, "QEMU refused to stop the guest: {}", base::dump_json(line));
    if (base::json_string_or(line, "event", "") == "STOP") return {};
  }
}

Result<base::UniqueFd> order_continue(const std::string& monitor_socket) {
  base::UniqueFd socket = TRY(base::connect_unix(monitor_socket));
  TRY(send_alone(socket.get(), base::dump_json({{"execute", "qmp_capabilities"}}) + "\n" +
                                   base::dump_json({{"execute", "cont"}}) + "\n"));
  return socket;
}

Result<> save_guest(const std::string& monitor_socket, int state_fd, const Deadline& deadline) {
  const base::UniqueFd socket = TRY(base::connect_unix(monitor_socket));
  TRY(send_with_fd(socket.get(), conversation("migrate"), state_fd));
  Lines lines(socket.get());
  for (;;) {
    const json line = TRY(lines.next(deadline));
    if (!line.is_object()) continue;
    if (line.contains("error"))
      return fail(ErrorCode::Io, "QEMU refused to save the guest: {}", base::dump_json(line));
    if (base::json_string_or(line, "event", "") != "MIGRATION") continue;
    const auto data = line.find("data");
    const std::string status = data != line.end() && data->is_object()
                                   ? base::json_string_or(*data, "status", "")
                                   : std::string();
    if (status == "completed") return {};
    if (status == "failed") return fail(ErrorCode::Io, "QEMU could not save the guest");
  }
}

}  // namespace runtime
