#pragma once
/// Events for the host, numbered without gaps, kept until it acknowledged them.

#include <cstdint>
#include <deque>
#include <optional>

#include "base/result.h"
#include "guest/protocol/protocol.h"

namespace agent {

class EventLog {
 public:
  /// Gives the event its number. A change of health is held back while the log is full, and only
  /// the newest is kept: it says all that the older ones said.
  void append(guest::Event event);
  /// Processes are only started while their events have a place.
  bool full() const;
  uint64_t last() const { return last_; }
  base::Result<> acknowledge(uint64_t sequence);
  /// The first kept event after `sequence`.
  const guest::Event* after(uint64_t sequence) const;

 private:
  void number(guest::Event event);

  std::deque<guest::Event> events_;
  std::optional<guest::Event> held_health_;
  uint64_t last_ = 0;
};

}  // namespace agent
