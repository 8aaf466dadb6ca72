#include "api/process_frames.h"

#include <algorithm>
#include <cerrno>
#include <thread>

#include <sys/socket.h>

#include <nlohmann/json.hpp>

#include "base/json.h"

namespace api {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;

constexpr size_t receive_bytes = 64u << 10;

/// Frames of several threads, each whole.
class Sender {
 public:
  explicit Sender(int socket) : socket_(socket) {}

  Result<> send(FrameKind kind, std::string_view payload) {
    Result<> sent;
    {
      const std::lock_guard lock(socket_mutex_);
      std::string bytes = take_notes();
      append_frame(bytes, kind, payload);
      sent = send_all(bytes);
    }
    send_notes();
    return sent;
  }

  /// Never waits: what the client does not take now goes before the next frame.
  void note(const std::string& text) {
    {
      const std::lock_guard lock(notes_mutex_);
      append_frame(notes_, FrameKind::Notice, base::dump_json({{"text", text}}));
    }
    send_notes();
  }

 private:
  std::string take_notes() {
    const std::lock_guard lock(notes_mutex_);
    return std::exchange(notes_, {});
  }

  /// Where somebody is sending, that one does it next.
  void send_notes() {
    const std::unique_lock socket(socket_mutex_, std::try_to_lock);
    if (!socket) return;
    const std::lock_guard lock(notes_mutex_);
    if (notes_.empty()) return;
    const ssize_t count =
        ::send(socket_, notes_.data(), notes_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count > 0) notes_.erase(0, static_cast<size_t>(count));
  }

  Result<> send_all(std::string_view left) {
    while (!left.empty()) {
      const ssize_t count = ::send(socket_, left.data(), left.size(), MSG_NOSIGNAL);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return base::fail_errno(errno, "send to the client");
      left.remove_prefix(static_cast<size_t>(count));
    }
    return {};
  }

  const int socket_;
  std::mutex socket_mutex_;  ///< Taken first.
  std::mutex notes_mutex_;
  std::string notes_;  ///< Frames, the first of which may be sent in part.
};

uint16_t small_number(const nlohmann::json& object, const char* key, int64_t fallback) {
  const int64_t value = base::json_int_or(object, key, fallback);
  return static_cast<uint16_t>(std::clamp<int64_t>(value, 0, UINT16_MAX));
}

Result<> take_frame(const Frame& frame, reconciler::ProcessSession& session) {
  switch (frame.kind) {
    case FrameKind::Stdin: return session.write_stdin(frame.payload);
    case FrameKind::StdinEnd: return session.close_stdin();
    case FrameKind::Resize: {
      const nlohmann::json size = TRY(base::parse_json(frame.payload));
      return session.resize(small_number(size, "rows", 24), small_number(size, "columns", 80));
    }
    case FrameKind::Signal: {
      const nlohmann::json signal = TRY(base::parse_json(frame.payload));
      return session.signal(static_cast<int>(TRY(base::json_int(signal, "signal"))));
    }
    case FrameKind::Stdout:
    case FrameKind::Stderr:
    case FrameKind::Exit:
    case FrameKind::Failure:
    case FrameKind::Started:
    case FrameKind::Notice: break;
  }
  return fail(ErrorCode::InvalidArgument, "a frame that only the daemon sends");
}

/// Until the client leaves or stops to make sense; then nobody waits for the process any more.
void take_frames(int socket, std::string first_bytes, reconciler::ProcessSession& session) {
  FrameDecoder decoder;
  decoder.feed(first_bytes);
  std::string buffer(receive_bytes, '\0');
  for (;;) {
    for (;;) {
      Result<std::optional<Frame>> frame = decoder.next();
      if (!frame) return session.cancel();
      if (!*frame) break;
      // A process that ended, or does not read, is told by its exit code and not here.
      (void)take_frame(**frame, session);
    }
    const ssize_t count = ::recv(socket, buffer.data(), buffer.size(), 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return session.cancel();
    decoder.feed(std::string_view(buffer.data(), static_cast<size_t>(count)));
  }
}

}  // namespace

AttachedClients::Seat::Seat(AttachedClients& clients, std::string container, Tell tell)
    : clients_(clients) {
  const std::lock_guard lock(clients.mutex_);
  place_ = clients.seats_.emplace(clients.seats_.end(), std::move(container), std::move(tell));
}

AttachedClients::Seat::~Seat() {
  const std::lock_guard lock(clients_.mutex_);
  clients_.seats_.erase(place_);
}

void AttachedClients::tell(const std::string& container, const std::string& text) {
  const std::lock_guard lock(mutex_);
  for (const auto& [watched, tell_client] : seats_)
    if (watched == container) tell_client(text);
}

void serve_process(int socket, std::string first_bytes, reconciler::ProcessSession& session,
                   const Attachment& attachment,
                   const std::function<void(const FrameSink&)>& beside) {
  Sender sender(socket);
  const AttachedClients::Seat seat(attachment.clients, attachment.container,
                                   [&](const std::string& text) { sender.note(text); });
  std::thread receiving([&] { take_frames(socket, std::move(first_bytes), session); });
  std::thread telling;
  if (beside)
    telling = std::thread([&] {
      beside([&](FrameKind kind, std::string_view payload) { (void)sender.send(kind, payload); });
    });
  const Result<int32_t> code = session.run([&](int stream, std::string_view bytes) {
    return sender.send(stream == 2 ? FrameKind::Stderr : FrameKind::Stdout, bytes).has_value();
  });
  if (code)
    (void)sender.send(FrameKind::Exit, base::dump_json({{"exit_code", *code}}));
  else
    (void)sender.send(
        FrameKind::Failure,
        base::dump_json({{"code", std::string(base::error_code_name(code.error().code()))},
                         {"message", code.error().to_string()}}));
  // The last frame must arrive although we do not read any more.
  ::shutdown(socket, SHUT_WR);
  ::shutdown(socket, SHUT_RD);
  receiving.join();
  if (telling.joinable()) telling.join();
}

}  // namespace api
