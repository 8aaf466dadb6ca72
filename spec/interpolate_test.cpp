#include "spec/interpolate.h"

#include <map>

#include <doctest/doctest.h>

using namespace spec;

namespace {

const std::map<std::string, std::string, std::less<>> variables = {
    {"SET", "value"}, {"EMPTY", ""}, {"name_2", "two"}};

const std::string* look_up(std::string_view name) {
  const auto found = variables.find(name);
  return found == variables.end() ? nullptr : &found->second;
}

std::string expand(std::string_view text) {
  const auto result = interpolate(text, look_up, 1000);
  return result ? result->text : "error: " + result.error().to_string();
}

bool fails_with(std::string_view text, std::string_view part) {
  const auto result = interpolate(text, look_up, 1000);
  return !result && result.error().to_string().find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("every form of a variable follows the table of the specification") {
  struct Row {
    const char* form;
    const char* set;
    const char* empty;
    const char* unset;
  };
  const Row rows[] = {
      {"$%", "value", "", ""},      {"${%}", "value", "", ""}, {"${%:-w}", "value", "w", "w"},
      {"${%-w}", "value", "", "w"}, {"${%:+w}", "w", "", ""},  {"${%+w}", "w", "w", ""},
  };
  const auto with = [](std::string form, const std::string& name) {
    return form.replace(form.find('%'), 1, name);
  };
  for (const Row& row : rows) {
    CHECK(expand(with(row.form, "SET")) == row.set);
    CHECK(expand(with(row.form, "EMPTY")) == row.empty);
    CHECK(expand(with(row.form, "UNSET")) == row.unset);
  }
  CHECK(expand("${SET:?m}") == "value");
  CHECK(expand("${EMPTY?m}") == "");
  CHECK(fails_with("${EMPTY:?say it}", "required variable EMPTY is missing a value: say it"));
  CHECK(fails_with("${UNSET?because}", "required variable UNSET is missing a value: because"));
}

TEST_CASE("dollar signs that name nothing stay") {
  CHECK(expand("$$SET costs $ 5, $1 and $} $") == "$SET costs $ 5, $1 and $} $");
  CHECK(expand("${name_2}$name_2-x") == "twotwo-x");
}

TEST_CASE("defaults nest, and the first operator by position wins") {
  CHECK(expand("${A:-${B:-${SET}}}!") == "value!");
  CHECK(expand("${A:-b:?c}") == "b:?c");
  CHECK(expand("${A:-{\"k\":1}}") == "{\"k\":1}");
}

TEST_CASE("a default that is not used neither warns nor fails") {
  const auto result = interpolate("${SET:-$UNSET ${UNSET:?no}}", look_up, 1000);
  REQUIRE(result);
  CHECK(result->text == "value");
  CHECK(result->unset.empty());
}

TEST_CASE("an unset variable is told") {
  const auto result = interpolate("a $X b ${Y}", look_up, 1000);
  REQUIRE(result);
  CHECK(result->text == "a  b ");
  CHECK(result->unset == std::vector<std::string>{"X", "Y"});
}

TEST_CASE("malformed expressions are errors that say how to write them") {
  for (const char* text : {"${}", "${ foo}", "${foo!}", "${foo", "${foo:}", "${1}"})
    CHECK_MESSAGE(fails_with(text, "invalid interpolation format"), text);
}

TEST_CASE("growth and nesting are bounded") {
  CHECK_FALSE(interpolate("$SET$SET", look_up, 9));
  CHECK(interpolate("$SET$SET", look_up, 10));
  std::string deep;
  for (int i = 0; i < 5000; ++i) deep += "${A:-";
  deep += std::string(5000, '}');
  CHECK(fails_with(deep, "nested deeper"));
}
