#include "base/names.h"

#include <doctest/doctest.h>

TEST_CASE("container names are letters, digits and inner punctuation, at most 63") {
  CHECK(base::check_name("container", "web-1_a.b"));
  CHECK(base::check_name("container", "a"));
  CHECK(base::check_name("container", std::string(63, 'a')));
  for (const std::string& name :
       {std::string(), std::string("../../x"), std::string("a/b"), std::string("-rf"),
        std::string(".hidden"), std::string(64, 'a'), std::string("a\0b", 3), std::string("a b"),
        std::string("\xe2\x80\xae")}) {
    CAPTURE(name);
    CHECK_FALSE(base::check_name("container", name));
  }
}

TEST_CASE("a refused name is shown escaped, with the rule") {
  const auto refused = base::check_name("container", "a\x1b]0;x");
  REQUIRE_FALSE(refused);
  CHECK(refused.error().to_string().find('\x1b') == std::string::npos);
  CHECK(refused.error().to_string().find("use letters, digits") != std::string::npos);
}

TEST_CASE("project names come from folders by the rule of the Compose Specification") {
  CHECK(base::normalized_project_name("My Shop (2)") == "myshop2");
  CHECK(base::normalized_project_name("_-shop") == "shop");
  CHECK(base::normalized_project_name("\xc3\xbc") == "");
  CHECK(base::check_project_name("shop-2_a"));
  CHECK_FALSE(base::check_project_name("Shop"));
  CHECK_FALSE(base::check_project_name("-shop"));
}

TEST_CASE("host names follow RFC 1123") {
  CHECK(base::check_hostname("db.shop.test"));
  CHECK_FALSE(base::check_hostname("db..test"));
  CHECK_FALSE(base::check_hostname("-db"));
  CHECK_FALSE(base::check_hostname(std::string(254, 'a')));
}
