#include <doctest/doctest.h>

#include "runtime/template/templates.h"

using runtime::StoredTemplate;
using runtime::superfluous;
using Folders = std::vector<std::string>;

TEST_CASE("as long as there is room nothing goes") {
  CHECK(superfluous({{"a", 100, 1}, {"b", 100, 2}}, {.count = 3, .bytes = 1000}).empty());
}

TEST_CASE("the one that was not used for the longest time goes first") {
  const std::vector<StoredTemplate> stored = {{"new", 10, 30}, {"old", 10, 10}, {"middle", 10, 20}};

  CHECK(superfluous(stored, {.count = 3, .bytes = 1000}) == Folders{"old"});
  CHECK(superfluous(stored, {.count = 2, .bytes = 1000}) == Folders{"old", "middle"});
}

TEST_CASE("few that are large go like many") {
  const std::vector<StoredTemplate> stored = {{"a", 600, 1}, {"b", 600, 2}, {"c", 300, 3}};

  CHECK(superfluous(stored, {.count = 100, .bytes = 1000}) == Folders{"a"});
  CHECK(superfluous(stored, {.count = 100, .bytes = 100}) == Folders{"a", "b", "c"});
}
