#pragma once
/// What happened when while one container was started and ended, for `container run --trace`.
///
/// Spans are kept only for subjects (containers) that somebody asked to trace; for all others a
/// call looks at one number and returns. Times are CLOCK_BOOTTIME of the host, so that those of
/// several processes lie on one line. One collection for the process; thread-safe, bounded.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/deadline.h"
#include "base/result.h"

namespace base {

namespace limits {
inline constexpr size_t traces_max = 64;        ///< Containers traced at one time.
inline constexpr size_t trace_spans_max = 256;  ///< Of one container.
}  // namespace limits

/// Beyond it no time is one: guests tell some, and sums of a few must not overflow.
inline constexpr int64_t span_ns_max = int64_t{1} << 61;

struct Span {
  std::string where;  ///< `command`, `daemon`, `qemu`, `guest`.
  std::string what;
  int64_t begin_ns = 0;
  int64_t end_ns = 0;
};

nlohmann::json to_json(const Span& span);
Result<Span> span_from_json(const nlohmann::json& json);
nlohmann::json to_json(const std::vector<Span>& spans);
/// InvalidArgument for more than limits::trace_spans_max of them.
Result<std::vector<Span>> spans_from_json(const nlohmann::json& json);

/// From here on spans of `subject` are kept, those of an earlier life forgotten. Beyond
/// limits::traces_max subjects the oldest is dropped.
void begin_trace(const std::string& subject);
bool is_traced(const std::string& subject);
void trace(const std::string& subject, Span span);
/// Everything about `subject`, which is not traced any more, up to the span `last`, once that is
/// told, or up to now, once the deadline has passed. NotFound: nobody asked to trace it.
Result<std::vector<Span>> end_trace(const std::string& subject, const std::string& last,
                                    const Deadline& deadline);

/// A span as long as its scope. `what` must outlive it.
class TraceScope {
 public:
  TraceScope(const std::string& subject, const char* where, const char* what)
      : where_(where), what_(what) {
    if (!is_traced(subject)) return;
    subject_ = subject;
    begin_ns_ = boottime_ns();
  }
  ~TraceScope() { close(); }
  TraceScope(const TraceScope&) = delete;
  TraceScope& operator=(const TraceScope&) = delete;
  /// Its end, before that of the scope.
  void close();

 private:
  std::string subject_;
  const char* where_;
  const char* what_;
  int64_t begin_ns_ = 0;
};

}  // namespace base
