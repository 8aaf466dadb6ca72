#pragma once
/// Connections that processes of a step make to a socket of ours, carried to the host.
///
/// The daemon is the client: it holds a request that tells of each connection as it is made, and
/// opens a stream for it, whose two bodies are its bytes.

#include <deque>
#include <map>
#include <memory>
#include <string>

#include "base/fd.h"
#include "guest/agent/loop.h"
#include "guest/agent/session.h"

namespace agent {

/// One accepted connection. Held by the stream that carries it.
class RelayedConnection : public std::enable_shared_from_this<RelayedConnection> {
 public:
  RelayedConnection(Loop& loop, base::UniqueFd socket) : loop_(loop), socket_(std::move(socket)) {}
  ~RelayedConnection() { close(); }
  RelayedConnection(const RelayedConnection&) = delete;
  RelayedConnection& operator=(const RelayedConnection&) = delete;

  base::Result<> carry(const ReplyPtr& reply);
  void write(std::string_view bytes);
  void finish_writing();
  BodySource::State read(std::string& out, size_t bytes_max);
  void close();

 private:
  void flush();

  Loop& loop_;
  base::UniqueFd socket_;
  std::weak_ptr<Reply> reply_;
  std::string unwritten_;
  bool finishing_ = false;
};

class Relay {
 public:
  explicit Relay(Loop& loop) : loop_(loop) {}
  ~Relay();
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  void begin_step(const std::string& step) { steps_[step] = std::make_shared<Step>(); }
  void listen(const std::string& step, size_t mount, base::UniqueFd socket);
  /// Nobody connects any more, and the step's readers come to their end.
  void end_step(const std::string& step);

  /// Tells of the step's connections. NotFound if no such step runs.
  base::Result<> tell(const std::string& step, const ReplyPtr& reply);
  /// Takes a connection over; NotFound if it is not there, or was taken already.
  base::Result<std::shared_ptr<BodySink>> carry(const std::string& connection,
                                                const ReplyPtr& reply);

 private:
  struct Step {
    std::vector<base::UniqueFd> listening;
    std::deque<std::string> news;  ///< Lines not yet sent.
    std::map<std::string, std::shared_ptr<RelayedConnection>> waiting;
    std::weak_ptr<Reply> reader;
  };
  class News;

  void accept(const std::string& step, size_t mount, int socket);

  Loop& loop_;
  std::map<std::string, std::shared_ptr<Step>> steps_;
  uint64_t last_connection_ = 0;
};

}  // namespace agent
