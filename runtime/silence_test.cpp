#include "runtime/silence.h"

#include <doctest/doctest.h>

namespace {

constexpr int64_t second = 1'000'000'000;

}  // namespace

TEST_CASE("a guest that answers, however late, does not hang") {
  runtime::Silence silence;
  silence.asking(100 * second, 40 * second, 0);
  CHECK(!silence.hangs(101 * second, 40 * second, 0));
  silence.asking(110 * second, 40 * second, 0);
  CHECK(!silence.hangs(120 * second, 112 * second, 0));
  silence.asking(120 * second, 112 * second, 0);
  CHECK(!silence.hangs(130 * second, 112 * second, 0));
}

TEST_CASE("a guest that was not asked for long does not hang at the first question") {
  runtime::Silence silence;
  silence.asking(1000 * second, 1 * second, 0);
  CHECK(!silence.hangs(1001 * second, 1 * second, 0));
}

TEST_CASE("a guest that says nothing although it could run hangs") {
  runtime::Silence silence;
  silence.asking(100 * second, 90 * second, 5 * second);
  silence.asking(110 * second, 90 * second, 5 * second);
  CHECK(!silence.hangs(111 * second, 90 * second, 5 * second));
  silence.asking(120 * second, 90 * second, 6 * second);
  CHECK(silence.hangs(121 * second, 90 * second, 6 * second));
  CHECK(!silence.hangs(122 * second, 121 * second, 6 * second));
}

TEST_CASE("time that a guest waits for a processor is not held against it") {
  runtime::Silence silence;
  silence.asking(100 * second, 90 * second, 0);
  CHECK(!silence.hangs(130 * second, 90 * second, 20 * second));
  CHECK(silence.hangs(150 * second, 90 * second, 20 * second));
}
