#include "runtime/guest_clock.h"

#include <doctest/doctest.h>

using runtime::clock_correction_ns;

namespace {
constexpr int64_t second = 1'000'000'000;
constexpr int64_t now = 1'800'000'000 * second;
}  // namespace

TEST_CASE("a clock that is near enough is left alone") {
  CHECK(clock_correction_ns(now, now, 0) == 0);
  CHECK(clock_correction_ns(now - runtime::clock_tolerance_ns, now, 0) == 0);
}

TEST_CASE("a clock that is behind or ahead is moved by that much") {
  CHECK(clock_correction_ns(now - 3 * second, now, 0) == 3 * second);
  CHECK(clock_correction_ns(now + 3 * second, now, 0) == -3 * second);
}

TEST_CASE("a long way to the guest and back is no error of its clock") {
  CHECK(clock_correction_ns(now - second, now, 2 * second) == 0);
  CHECK(clock_correction_ns(now, now, 2 * second) == 0);
  CHECK(clock_correction_ns(now - 9 * second, now, 2 * second) == 8 * second);
}
