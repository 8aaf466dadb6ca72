#include "guest/agent/event_log.h"

#include <utility>

#include "guest/agent/limits.h"

namespace agent {

void EventLog::append(guest::Event event) {
  if (event.kind == guest::EventKind::Health && full()) {
    held_health_ = std::move(event);
    return;
  }
  number(std::move(event));
}

void EventLog::number(guest::Event event) {
  event.sequence = ++last_;
  events_.push_back(std::move(event));
}

bool EventLog::full() const { return events_.size() >= limits::events_unacknowledged_max; }

base::Result<> EventLog::acknowledge(uint64_t sequence) {
  if (sequence > last_)
    return base::fail(base::ErrorCode::InvalidArgument, "event {} has not happened; the last is {}",
                      sequence, last_);
  while (!events_.empty() && events_.front().sequence <= sequence) events_.pop_front();
  if (held_health_ && !full()) number(*std::exchange(held_health_, std::nullopt));
  return {};
}

const guest::Event* EventLog::after(uint64_t sequence) const {
  if (events_.empty() || sequence >= events_.back().sequence) return nullptr;
  const uint64_t first = events_.front().sequence;
  const size_t index = sequence < first ? 0 : static_cast<size_t>(sequence - first + 1);
  return &events_[index];
}

}  // namespace agent
