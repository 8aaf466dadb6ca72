#include <algorithm>
#include <cerrno>
#include <mutex>
#include <thread>

#include <sys/socket.h>

#include <nlohmann/json.hpp>

#include "api/service.h"
#include "api/wire.h"
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
    std::string bytes;
    append_frame(bytes, kind, payload);
    std::string_view left = bytes;
    const std::lock_guard lock(mutex_);
    while (!left.empty()) {
      const ssize_t count = ::send(socket_, left.data(), left.size(), MSG_NOSIGNAL);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return base::fail_errno(errno, "send to the client");
      left.remove_prefix(static_cast<size_t>(count));
    }
    return {};
  }

 private:
  const int socket_;
  std::mutex mutex_;
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
    case FrameKind::Started: break;
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

void serve_process(int socket, std::string first_bytes, reconciler::ProcessSession& session,
                   const std::function<void(const FrameSink&)>& beside) {
  Sender sender(socket);
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
