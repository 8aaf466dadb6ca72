#include "guest/agent/timeline.h"

#include "base/deadline.h"

namespace agent {

void Timeline::begin() {
  spans_.clear();
  last_ns_ = base::boottime_ns();
}

void Timeline::mark(const char* what) {
  if (!on()) return;
  const int64_t now_ns = base::boottime_ns();
  spans_.push_back({.where = "guest", .what = what, .begin_ns = last_ns_, .end_ns = now_ns});
  last_ns_ = now_ns;
}

void Timeline::replace(std::vector<base::Span> spans) {
  if (!on() || spans.empty()) return;
  spans_ = std::move(spans);
  last_ns_ = spans_.back().end_ns;
}

Timeline& timeline() {
  static Timeline ours;
  return ours;
}

}  // namespace agent
