#include "base/trace.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>

#include <nlohmann/json.hpp>

#include "base/json.h"

namespace base {
namespace {

struct Traced {
  std::string subject;
  std::vector<Span> spans;
};

struct Collection {
  std::atomic<size_t> count = 0;
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Traced> traced;

  std::deque<Traced>::iterator find(const std::string& subject) {
    return std::find_if(traced.begin(), traced.end(),
                        [&](const Traced& each) { return each.subject == subject; });
  }
};

Collection& collection() {
  static Collection all;
  return all;
}

}  // namespace

nlohmann::json to_json(const Span& span) {
  return {{"where", span.where},
          {"what", span.what},
          {"begin_ns", span.begin_ns},
          {"end_ns", span.end_ns}};
}

Result<Span> span_from_json(const nlohmann::json& json) {
  Span span;
  span.where = TRY(json_string(json, "where"));
  span.what = TRY(json_string(json, "what"));
  span.begin_ns = TRY(json_int(json, "begin_ns"));
  span.end_ns = TRY(json_int(json, "end_ns"));
  for (const int64_t ns : {span.begin_ns, span.end_ns})
    if (ns < -span_ns_max || ns > span_ns_max)
      return fail(ErrorCode::InvalidArgument, "{} ns is no time of a span", ns);
  return span;
}

nlohmann::json to_json(const std::vector<Span>& spans) {
  nlohmann::json list = nlohmann::json::array();
  for (const Span& span : spans) list.push_back(to_json(span));
  return list;
}

Result<std::vector<Span>> spans_from_json(const nlohmann::json& json) {
  if (!json.is_array() || json.size() > limits::trace_spans_max)
    return fail(ErrorCode::InvalidArgument, "a timeline is a list of at most {} spans",
                limits::trace_spans_max);
  std::vector<Span> spans;
  for (const nlohmann::json& each : json) spans.push_back(TRY(span_from_json(each)));
  return spans;
}

void begin_trace(const std::string& subject) {
  Collection& all = collection();
  const std::lock_guard lock(all.mutex);
  if (const auto found = all.find(subject); found != all.traced.end()) all.traced.erase(found);
  if (all.traced.size() >= limits::traces_max) all.traced.pop_front();
  all.traced.push_back({.subject = subject, .spans = {}});
  all.count = all.traced.size();
}

bool is_traced(const std::string& subject) {
  Collection& all = collection();
  if (all.count == 0) return false;
  const std::lock_guard lock(all.mutex);
  return all.find(subject) != all.traced.end();
}

void trace(const std::string& subject, Span span) {
  Collection& all = collection();
  if (all.count == 0) return;
  const std::lock_guard lock(all.mutex);
  const auto found = all.find(subject);
  if (found == all.traced.end() || found->spans.size() >= limits::trace_spans_max) return;
  found->spans.push_back(std::move(span));
  all.changed.notify_all();
}

Result<std::vector<Span>> end_trace(const std::string& subject, const std::string& last,
                                    const Deadline& deadline) {
  Collection& all = collection();
  std::unique_lock lock(all.mutex);
  for (;;) {
    const auto found = all.find(subject);
    if (found == all.traced.end()) return fail(ErrorCode::NotFound, "nobody traces '{}'", subject);
    std::vector<Span>& spans = found->spans;
    const auto end = std::find_if(spans.begin(), spans.end(),
                                  [&](const Span& span) { return span.what == last; });
    if (end == spans.end() && !deadline.passed()) {
      all.changed.wait_for(lock, std::chrono::milliseconds(deadline.remaining_ms()));
      continue;
    }
    if (end != spans.end()) spans.erase(end + 1, spans.end());
    std::vector<Span> told = std::move(spans);
    all.traced.erase(found);
    all.count = all.traced.size();
    return told;
  }
}

void TraceScope::close() {
  if (subject_.empty()) return;
  trace(subject_, {.where = where_, .what = what_, .begin_ns = begin_ns_, .end_ns = boottime_ns()});
  subject_.clear();
}

}  // namespace base
