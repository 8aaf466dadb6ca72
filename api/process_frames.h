#pragma once
/// Between a client and a process, as frames (api/wire.h).

#include <functional>
#include <list>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "api/wire.h"
#include "reconciler/ports/runtime.h"

namespace api {

/// The clients that talk with processes, by container: they should hear of what happens to its
/// machine. Any thread.
class AttachedClients {
 public:
  /// Must not wait for anything.
  using Tell = std::function<void(const std::string& text)>;

  /// One client, for as long as this lives.
  class Seat {
   public:
    Seat(AttachedClients& clients, std::string container, Tell tell);
    ~Seat();
    Seat(const Seat&) = delete;
    Seat& operator=(const Seat&) = delete;

   private:
    AttachedClients& clients_;
    std::list<std::pair<std::string, Tell>>::iterator place_;
  };

  void tell(const std::string& container, const std::string& text);

 private:
  std::mutex mutex_;
  std::list<std::pair<std::string, Tell>> seats_;
};

struct Attachment {
  AttachedClients& clients;
  std::string container;
};

using FrameSink = std::function<void(FrameKind kind, std::string_view payload)>;

/// Moves frames until the client or the process ends. Blocks. `beside`, if there is one, is told of
/// the client too, and must have returned when the process has ended: it gives a function that
/// sends a frame.
void serve_process(int socket, std::string first_bytes, reconciler::ProcessSession& session,
                   const Attachment& attachment,
                   const std::function<void(const FrameSink&)>& beside = {});

}  // namespace api
