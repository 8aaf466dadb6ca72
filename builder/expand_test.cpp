/// One line per case: what stands in the file, and what it becomes.

#include <map>

#include <doctest/doctest.h>

#include "base/limits.h"
#include "builder/expand.h"

using builder::Expander;

namespace {

const std::map<std::string, std::string, std::less<>> variables = {
    {"A", "apple"},        {"EMPTY", ""},         {"SPACES", "one two"},
    {"DOLLAR", "$A"},      {"F", "a/b/c.tar.gz"}, {"STARS", "x*y*z"},
    {"U", "\xC3\xA4pfel"}, {"LINES", "a\nb"},     {"PORTS", "80 443/udp"}};

std::optional<std::string> lookup(std::string_view name) {
  const auto found = variables.find(name);
  return found == variables.end() ? std::nullopt : std::optional(found->second);
}

std::string word(std::string_view text, char escape = '\\') {
  const auto result = Expander(escape, lookup).word(text);
  return result ? *result : "error: " + result.error().to_string();
}

std::string words(std::string_view text) {
  const auto result = Expander('\\', lookup).words(text);
  if (!result) return "error: " + result.error().to_string();
  std::string joined;
  for (const std::string& one : *result) joined += "<" + one + ">";
  return joined;
}

}  // namespace

TEST_CASE("variables, their defaults and alternatives") {
  CHECK(word("$A") == "apple");
  CHECK(word("${A}s") == "apples");
  CHECK(word("$As") == "");
  CHECK(word("$A-$A") == "apple-apple");
  CHECK(word("$NONE.") == ".");
  CHECK(word("${NONE:-x}") == "x");
  CHECK(word("${NONE-x}") == "x");
  CHECK(word("${EMPTY:-x}") == "x");
  CHECK(word("${EMPTY-x}") == "");
  CHECK(word("${A:+x}") == "x");
  CHECK(word("${EMPTY:+x}") == "");
  CHECK(word("${EMPTY+x}") == "x");
  CHECK(word("${NONE+x}") == "");
  CHECK(word("${A:?no}") == "apple");
  CHECK(word("${EMPTY?no}") == "");
  CHECK(word("${NONE:-${A}}") == "apple");
  CHECK(word("${NONE:-\"a b\"}") == "a b");
}

TEST_CASE("a demand for a variable that is not set is an error with its text") {
  CHECK(word("${NONE?give it}") == "error: NONE: give it");
  CHECK(word("${EMPTY:?give it}") == "error: EMPTY: give it");
  CHECK(word("${NONE?}") == "error: NONE: is not allowed to be unset");
  CHECK(word("${EMPTY:?}") == "error: EMPTY: is not allowed to be empty");
}

TEST_CASE("prefixes, suffixes and replacements, shortest and longest") {
  CHECK(word("${F#*/}") == "b/c.tar.gz");
  CHECK(word("${F##*/}") == "c.tar.gz");
  CHECK(word("${F%.*}") == "a/b/c.tar");
  CHECK(word("${F%%.*}") == "a/b/c");
  CHECK(word("${F%/*}") == "a/b");
  CHECK(word("${A#?}") == "pple");
  CHECK(word("${U#?}") == "pfel");
  CHECK(word("${A/p/P}") == "aPple");
  CHECK(word("${A//p/P}") == "aPPle");
  CHECK(word("${A//p/}") == "ale");
  CHECK(word("${F/\\//-}") == "a-b/c.tar.gz");
  CHECK(word("${F//\\//-}") == "a-b-c.tar.gz");
  CHECK(word("${STARS//\\*/.}") == "x.y.z");
  CHECK(word("${A//*/x}") == "x");
  CHECK(word("${A/nothing/x}") == "apple");
  CHECK(word("${LINES//*/x}") == "x\nx");
  CHECK(word("${NONE#x}") == "");
}

TEST_CASE("quotes and escapes") {
  CHECK(word("'$A'") == "$A");
  CHECK(word("\"$A\"") == "apple");
  CHECK(word("\\$A") == "$A");
  CHECK(word("\"\\$A\"") == "$A");
  CHECK(word("\"a\\nb\"") == "a\\nb");
  CHECK(word("a\\nb") == "anb");
  CHECK(word("\"it's\"") == "it's");
  CHECK(word("end\\") == "end");
  CHECK(word("`$A", '`') == "$A");
  CHECK(word("c:\\x", '`') == "c:\\x");
  CHECK(word("a  b") == "a  b");
  CHECK(word("$") == "$");
  CHECK(word("$$A") == "A");
  CHECK(word("a$/b") == "a$/b");
}

TEST_CASE("a value is never expanded again") {
  CHECK(word("$DOLLAR") == "$A");
  CHECK(word("${NONE:-$DOLLAR}") == "$A");
}

TEST_CASE("words are split outside of quotes, values too") {
  CHECK(words("a b") == "<a><b>");
  CHECK(words("$SPACES") == "<one><two>");
  CHECK(words("\"$SPACES\"") == "<one two>");
  CHECK(words("x$SPACES") == "<xone><two>");
  CHECK(words("'a b' c\\ d") == "<a b><c d>");
  CHECK(words("$EMPTY") == "");
}

TEST_CASE("here documents keep quotes, and know only the backslash") {
  const Expander expander('`', lookup);
  CHECK(expander.raw("\"$A\" '$A'\n").value() == "\"apple\" 'apple'\n");
  CHECK(expander.raw("\\$A \\\\ \\\n").value() == "$A \\ \n");
}

TEST_CASE("what is wrong is named") {
  CHECK(word("${A") == "error: a missing '}' of a variable in '${A'");
  CHECK(word("${A:-x") == "error: a missing '}' of a variable in '${A:-x'");
  CHECK(word("${}") == "error: a bad substitution in '${}'");
  CHECK(word("${A^}") == "error: an unsupported modifier '^' of a variable in '${A^}'");
  CHECK(word("${A:=x}") == "error: an unsupported modifier ':=' of a variable in '${A:=x}'");
  CHECK(word("'a") == "error: a missing closing ' in ''a'");
  CHECK(word("\"a") == "error: a missing closing \" in '\"a'");
  CHECK(word("${A/p}") == "error: a missing '/' of a replacement in '${A/p}'");
  CHECK(word("${A#\\x}").find("invalid escape '\\x'") != std::string::npos);
}

TEST_CASE("names that were found or missing are told, but not those with a default") {
  builder::UsedVariables used;
  const Expander expander('\\', lookup, &used);
  REQUIRE(expander.word("$A ${NONE} ${OTHER:-x} '$QUOTED'"));
  CHECK(used.found == std::set<std::string>{"A"});
  CHECK(used.unset == std::set<std::string>{"NONE"});
}

TEST_CASE("expansion is bounded in size, depth and steps") {
  const std::string large(600u << 10, 'a');
  const Expander expander('\\', [&](std::string_view) { return std::optional(large); });
  CHECK_FALSE(expander.word("$V$V"));
  CHECK_FALSE(expander.word("\"$V$V\""));
  CHECK_FALSE(expander.word("${V//a/bb}"));
  CHECK_FALSE(expander.word("${V//" + std::string(200, 'a') + "*b/x}"));
  CHECK(expander.word("${V//*b/x}").value() == large);
  std::string deep;
  for (uint32_t i = 0; i <= base::limits::expansion_depth_max; ++i) deep += "${V:+";
  CHECK_FALSE(expander.word(deep + std::string(base::limits::expansion_depth_max + 1, '}')));
}

TEST_CASE("each instruction is expanded where the reference does it") {
  const Expander expander('\\', lookup);
  const auto as = [&](const builder::Operation& operation) {
    return builder::expand(operation, expander).value();
  };
  using namespace builder;
  CHECK(std::get<EnvInstruction>(as(EnvInstruction{{{"$A", "$A"}, {"x", "\"$SPACES\""}}})).pairs ==
        Pairs{{"apple", "apple"}, {"x", "one two"}});
  CHECK(std::get<ExposeInstruction>(as(ExposeInstruction{{"$PORTS"}})).ports ==
        std::vector<std::string>{"80", "443/udp"});
  CHECK(std::get<WorkdirInstruction>(as(WorkdirInstruction{"/$A/$SPACES"})).path ==
        "/apple/one two");
  CHECK(std::get<RunInstruction>(as(RunInstruction{{true, {"echo $A"}}, {}, {}})).command.words ==
        std::vector<std::string>{"echo $A"});
  const auto copy = std::get<CopyInstruction>(
      as(CopyInstruction{.sources = {"$A"},
                         .heredocs = {{"a", "$A", true}, {"b", "$A", false}},
                         .target = "/$A",
                         .chown = "$A"}));
  CHECK(copy.sources == std::vector<std::string>{"apple"});
  CHECK(copy.target == "/apple");
  CHECK(copy.chown == "apple");
  CHECK(copy.heredocs[0].content == "apple");
  CHECK(copy.heredocs[1].content == "$A");
}

TEST_CASE("mounts with variables are checked when these are known") {
  const Expander expander('\\', [](std::string_view name) -> std::optional<std::string> {
    return name == "T" ? "cache" : name == "ID" ? "7" : "/x";
  });
  using namespace builder;
  RunInstruction run;
  run.mounts.push_back({.text = "type=$T,uid=$ID,target=$P"});
  const auto mount = std::get<RunInstruction>(expand(Operation(run), expander).value()).mounts[0];
  CHECK(mount.type == RunMountType::Cache);
  CHECK(mount.user == 7u);
  CHECK(mount.target == "/x");
  CHECK_FALSE(mount.read_only);
  run.mounts[0].text = "type=$P";
  CHECK_FALSE(expand(Operation(run), expander));
}
