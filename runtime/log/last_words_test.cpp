#include "runtime/log/last_words.h"

#include <doctest/doctest.h>

namespace runtime {

TEST_CASE("of a long console the last words are told, and of a kernel that fails its first") {
  CHECK(last_words("") == "it printed nothing");
  CHECK(last_words("one\r\n\ntwo\x1b\n") == "one | two\\x1b");
  const std::string trace(4000, 't');
  CHECK(last_words(trace + "\nthe end\n").ends_with("ttt | the end"));
  CHECK(last_words(trace + "\nthe end\n").size() == 600);
  const std::string failed =
      last_words("ready\n[ 1.0] Oops: int3: 0000 [#1] SMP\n" + trace + "\nKernel panic\n");
  CHECK(failed.starts_with("[ 1.0] Oops: int3: 0000 [#1] SMP | ttt"));
  CHECK(failed.size() == 600);
}

}  // namespace runtime
