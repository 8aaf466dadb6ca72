#pragma once
/// The daemon's side of guest/protocol/protocol.h: one connection to one VM's agent.
///
/// Network work happens on the IoLoop; the methods block the calling thread until a deadline. The
/// connection is remade by itself, with a new session each time, until `close`. A request that was
/// under way when it broke fails with Io; whoever reads streams asks again from its last offset.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/deadline.h"
#include "base/result.h"
#include "runtime/io/loop.h"

namespace runtime {

struct AgentOptions {
  std::string socket_path;
  uint64_t epoch = 1;  ///< Of the daemon; an agent refuses one lower than it has seen.
};

struct AgentReply {
  int status = 0;
  std::string body;
};

/// What the agent said in an answer with a status of 400 and above.
base::Error error_of_reply(const AgentReply& reply, const std::string& path);

/// One request with a streamed body in either direction. Its memory is bounded by the HTTP/2
/// window of the stream: what is not read here holds the sender in the guest back.
class AgentStream {
 public:
  virtual ~AgentStream() = default;
  /// Waits for the response's status.
  virtual base::Result<int> status(const base::Deadline& deadline) = 0;
  /// Some bytes of the response, or none at its end.
  virtual base::Result<std::string> read(const base::Deadline& deadline) = 0;
  /// Blocks while the agent does not take more.
  virtual base::Result<> write(std::string_view bytes, const base::Deadline& deadline) = 0;
  virtual void finish_writing() = 0;
  /// Resets the stream; blocked calls return Cancelled.
  virtual void cancel() = 0;
};

class AgentClient {
 public:
  /// Begins to connect at once. `loop` must outlive it.
  static base::Result<std::shared_ptr<AgentClient>> create(IoLoop& loop, AgentOptions options);
  virtual ~AgentClient() = default;

  /// Until the agent has answered the greeting. InvalidState after `close`, with its reason.
  virtual base::Result<> await_connected(const base::Deadline& deadline) = 0;
  /// One exchange. A status of 400 and above becomes the Error the agent sent.
  virtual base::Result<std::string> call(const std::string& method, const std::string& path,
                                         const std::string& body,
                                         const base::Deadline& deadline) = 0;
  /// `upload`: the request body follows by write(); otherwise there is none.
  virtual base::Result<std::shared_ptr<AgentStream>> open(const std::string& method,
                                                          const std::string& path, bool upload,
                                                          const base::Deadline& deadline) = 0;
  /// When bytes last came from the agent, in nanoseconds on CLOCK_BOOTTIME; 0: never.
  virtual int64_t heard_ns() const = 0;
  /// For good: everything blocked here returns InvalidState with `reason`.
  virtual void close(const std::string& reason) = 0;
  virtual bool closed() const = 0;
};

}  // namespace runtime
