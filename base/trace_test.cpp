#include "base/trace.h"

#include <thread>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

using base::Deadline;
using base::Span;

TEST_CASE("a time that no clock shows is refused") {
  const auto with = [](int64_t begin_ns) {
    return base::span_from_json(
        {{"where", "guest"}, {"what", "boots"}, {"begin_ns", begin_ns}, {"end_ns", 5}});
  };
  CHECK(with(3));
  CHECK(!with(INT64_MIN));
  CHECK(!with(INT64_MAX));
}

TEST_CASE("what nobody asked to trace is not kept") {
  base::trace("quiet", {"daemon", "start", 1, 2});

  CHECK_FALSE(base::is_traced("quiet"));
  CHECK(base::end_trace("quiet", "start", Deadline::in_ms(0)).error().code() ==
        base::ErrorCode::NotFound);
}

TEST_CASE("a timeline is complete when its last span has come") {
  base::begin_trace("one");
  std::thread late([] {
    base::trace("one", {"daemon", "begin", 1, 2});
    base::trace("one", {"daemon", "end", 2, 3});
  });

  const auto spans = base::end_trace("one", "end", Deadline::in_ms(10'000));

  late.join();
  CHECK(spans.value().size() == 2);
  CHECK_FALSE(base::is_traced("one"));
}

TEST_CASE("what is told after a timeline's last span is not of it") {
  base::begin_trace("over");
  base::trace("over", {"daemon", "end", 1, 2});
  base::trace("over", {"daemon", "tidying up", 2, 3});

  const auto spans = base::end_trace("over", "end", Deadline::in_ms(0));

  CHECK(spans.value().size() == 1);
}

TEST_CASE("a timeline whose end does not come is given as it is") {
  base::begin_trace("half");
  base::trace("half", {"daemon", "begin", 1, 2});

  CHECK(base::end_trace("half", "end", Deadline::in_ms(1)).value().size() == 1);
}

TEST_CASE("the memory of timelines is bounded") {
  for (size_t i = 0; i <= base::limits::traces_max; ++i)
    base::begin_trace("many" + std::to_string(i));
  for (size_t i = 0; i <= base::limits::trace_spans_max; ++i)
    base::trace("many1", {"daemon", "again", 1, 2});

  CHECK_FALSE(base::is_traced("many0"));
  CHECK(base::end_trace("many1", "", Deadline::in_ms(0)).value().size() ==
        base::limits::trace_spans_max);
  for (size_t i = 2; i <= base::limits::traces_max; ++i)
    CHECK(base::end_trace("many" + std::to_string(i), "", Deadline::in_ms(0)));
}

TEST_CASE("spans keep their meaning on the way between processes") {
  const std::vector<Span> spans = {{"guest", "mounts", 5, 9}, {"qemu", "state", 1, 4}};

  const auto back = base::spans_from_json(base::to_json(spans)).value();

  REQUIRE(back.size() == 2);
  CHECK(back[0].where == "guest");
  CHECK(back[0].what == "mounts");
  CHECK(back[1].begin_ns == 1);
  CHECK(back[1].end_ns == 4);
}
