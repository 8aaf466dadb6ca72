#include "base/json.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

TEST_CASE("JSON nested to absurd depth is refused, not overflowed") {
  const std::string deep(1'000'000, '[');
  const auto refused = base::parse_json(deep);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().to_string().find("nested deeper") != std::string::npos);
}

TEST_CASE("broken JSON is an error, and so are bytes that are no UTF-8") {
  CHECK_FALSE(base::parse_json("{\"a\": "));
  CHECK_FALSE(base::parse_json("\"\xff\""));
  CHECK(base::parse_json(" {\"a\": [1, 2]} ").value()["a"][1] == 2);
}

TEST_CASE("bytes that are no UTF-8 are replaced on the way out") {
  CHECK(base::dump_json(nlohmann::json("a\xff")) == "\"a\xef\xbf\xbd\"");
}

TEST_CASE("members are fetched with an error that names the key") {
  const auto object = base::parse_json(R"({"name": "web", "count": 2})").value();
  CHECK(base::json_string(object, "name").value() == "web");
  CHECK(base::json_int(object, "count").value() == 2);
  CHECK(base::json_int(object, "name").error().to_string() == "'name' must be a whole number");
  CHECK(base::json_string_or(object, "missing", "x") == "x");
  CHECK(base::json_bool_or(object, "count", true));
}
