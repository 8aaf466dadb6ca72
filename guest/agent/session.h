#pragma once
/// The control port: greetings, and one HTTP/2 session (RFC 9113) at a time, we being the server.
///
/// A session ends when the next greeting comes; nothing of it is kept. Requests whose answer takes
/// time hold a ReplyPtr, which outlives its session harmlessly.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"
#include "guest/agent/loop.h"
#include "guest/protocol/greeting.h"

struct nghttp2_session;

namespace agent {

/// The body of a response that is made while it is sent.
class BodySource {
 public:
  enum class State { More, Wait, End, Broken };
  virtual ~BodySource() = default;
  /// Appends about `bytes_max` bytes to `out`. Wait: nothing now; Reply::resume() says when.
  virtual State fill(std::string& out, size_t bytes_max) = 0;
  /// After Broken: why there is no more. It ends the response as a trailer.
  virtual std::string failure() const { return {}; }
};

/// Where the body of a request goes as it arrives.
class BodySink {
 public:
  virtual ~BodySink() = default;
  virtual void bytes(std::string_view piece) = 0;
  virtual void end() = 0;
};

/// The way back to one request. Only the first answer counts.
class Reply {
 public:
  virtual ~Reply() = default;
  virtual void send(const nlohmann::json& body) = 0;
  virtual void fail(const base::Error& error) = 0;
  virtual void stream(std::shared_ptr<BodySource> source) = 0;
  virtual void resume() = 0;
  /// So many bytes given to the BodySink have been used: the sender may go on.
  virtual void consumed(size_t bytes) = 0;
  /// Bytes the sender may be ahead of consumed(); asked for before the first of them.
  virtual void set_window(int32_t bytes) = 0;
  /// Called when the request is over, however it ended.
  virtual void on_closed(std::function<void()> call) = 0;
};
using ReplyPtr = std::shared_ptr<Reply>;

struct Request {
  std::string method;
  std::string path;  ///< Without the query.
  std::map<std::string, std::string> query;
  std::string body;  ///< Whole, unless a BodySink took it.
};

class RequestHandler {
 public:
  virtual ~RequestHandler() = default;
  /// Asked when the headers are there: a sink for bodies of any length, null to have it collected.
  virtual std::shared_ptr<BodySink> upload(const Request& request, const ReplyPtr& reply) = 0;
  virtual void request(const Request& request, const ReplyPtr& reply) = 0;
  /// A daemon later than the one before has greeted. Nobody knows any more what was open with that
  /// one: its processes (exec) run on unread, as after a DELETE.
  virtual void new_daemon() = 0;
};

class ControlPort {
 public:
  /// `fd` is non-blocking: a virtio-serial port, or a socket in tests.
  ControlPort(Loop& loop, int fd, RequestHandler& handler);
  ~ControlPort();
  ControlPort(const ControlPort&) = delete;
  ControlPort& operator=(const ControlPort&) = delete;
  base::Result<> start();

 private:
  class Session;
  friend class Session;

  void on_ready();
  bool read_some();
  void take(std::string_view bytes);
  void greet(const guest::Greeting& greeting);
  void drop_session();
  void write_some();
  void schedule_write();

  Loop& loop_;
  int fd_;
  RequestHandler& handler_;
  std::vector<char> read_buffer_;
  guest::SessionSplitter splitter_;
  std::shared_ptr<Session> session_;
  uint64_t highest_epoch_ = 0;
  guest::Greeting current_;  ///< Of `session_`.
  std::string outgoing_;
  size_t outgoing_sent_ = 0;
  bool write_scheduled_ = false;
  Timer silence_ = 0;
};

}  // namespace agent
