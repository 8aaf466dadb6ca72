#include <doctest/doctest.h>

#include "builder/filtered_tree.h"
#include "builder/ignore.h"
#include "builder/test_tree.h"

using builder::Ignore;
using builder::PathPattern;
using builder_test::MemoryTree;

namespace {

bool matches(std::string_view pattern, std::string_view path) {
  return PathPattern::create(pattern).value().matches(path);
}

bool excludes(std::string_view file, std::string_view path) {
  const Ignore ignore = Ignore::parse(file).value();
  // Both ways of asking agree.
  Ignore::State state = ignore.root();
  for (size_t slash = path.find('/'); slash != std::string_view::npos;
       slash = path.find('/', slash + 1))
    state = ignore.state(state, path.substr(0, slash));
  const bool result = ignore.state(state, path).excluded;
  CHECK(ignore.excludes(path) == result);
  return result;
}

std::string names(const builder::Tree& tree, const std::string& folder) {
  std::string all;
  const auto children = tree.list(folder).value();
  for (const auto& child : children) all += child.name + " ";
  return all;
}

}  // namespace

TEST_CASE("patterns match as the reference's do") {
  CHECK(matches("a", "a"));
  CHECK_FALSE(matches("a", "ab"));
  CHECK(matches("*", "a"));
  CHECK_FALSE(matches("*", "a/b"));
  CHECK(matches("*.go", "x.go"));
  CHECK_FALSE(matches("*.go", "d/x.go"));
  CHECK(matches("**", "a/b/c"));
  CHECK(matches("**/x.go", "x.go"));
  CHECK(matches("**/x.go", "a/b/x.go"));
  CHECK_FALSE(matches("**/x.go", "a/bx.go"));
  CHECK(matches("**x.go", "a/bx.go"));
  CHECK(matches("a/**", "a/b/c"));
  CHECK_FALSE(matches("a/**", "a"));
  CHECK(matches("a/**/b", "a/b"));
  CHECK(matches("a/**/b", "a/x/y/b"));
  CHECK_FALSE(matches("a/**/b", "a/xb"));
  CHECK(matches("**/*.txt", "a/b.txt"));
  CHECK(matches("?b", "ab"));
  CHECK_FALSE(matches("?b", "/b"));
  CHECK(matches("?", "\xC3\xA4"));
  CHECK(matches("[a-c]x", "bx"));
  CHECK_FALSE(matches("[^a-c]x", "bx"));
  CHECK(matches("[\\]]", "]"));
  CHECK(matches("arr[[]0].txt", "arr[0].txt"));
  CHECK(matches("a\\*b", "a*b"));
  CHECK_FALSE(matches("a\\*b", "axb"));
  CHECK(matches("a+b(c)|{d}$.^", "a+b(c)|{d}$.^"));
}

TEST_CASE("patterns that can mean nothing are refused") {
  CHECK_FALSE(PathPattern::create("a["));
  CHECK_FALSE(PathPattern::create("[]a]"));
  CHECK_FALSE(PathPattern::create("[a-]"));
  CHECK_FALSE(PathPattern::create("a\\"));
  CHECK(Ignore::parse("ok\na[\n").error().to_string().starts_with("line 2: "));
  CHECK(Ignore::parse("!\n").error().to_string() == "line 1: a '!' without a pattern");
}

TEST_CASE("a pattern that would take a careless matcher for ever takes no time") {
  std::string stars;
  for (int i = 0; i < 60; ++i) stars += "*a";
  CHECK_FALSE(matches(stars + "b", std::string(4000, 'a')));
}

TEST_CASE("the last rule that matches a path or its parents decides") {
  CHECK(excludes("node_modules", "node_modules/x/y"));
  CHECK_FALSE(excludes("node_modules", "src/node_modules"));
  CHECK(excludes("**/node_modules", "src/node_modules/x"));
  CHECK_FALSE(excludes("*\n!src", "src/x"));
  CHECK(excludes("*\n!src\nsrc/x", "src/x"));
  CHECK_FALSE(excludes("*\n!src\nsrc/x\n!src/x/keep", "src/x/keep/a"));
  CHECK(excludes("!src\n*", "src/x"));
  CHECK(excludes("*.md\n!README.md", "docs.md"));
  CHECK_FALSE(excludes("*.md\n!README.md", "README.md"));
}

TEST_CASE("comments, white space, slashes and dots mean what they should") {
  CHECK_FALSE(excludes("# a\n\n  \n", "a"));
  CHECK(excludes("\xEF\xBB\xBF  a  \r\n", "a"));
  CHECK_FALSE(excludes("#a", "#a"));
  CHECK(excludes(" #a", "#a"));
  CHECK(excludes("/a/./b/../c/", "a/c"));
  CHECK_FALSE(excludes("! a\n", "a"));
  CHECK_FALSE(excludes(".", "a"));
}

TEST_CASE("a folder is passed over only if no exception may reach below it") {
  const Ignore ignore = Ignore::parse("a\n!a/b/*.txt\nc\n!**/keep/x\n").value();
  CHECK(ignore.may_include_below("a"));
  CHECK(ignore.may_include_below("a/b"));
  CHECK(ignore.may_include_below("c"));
  const Ignore narrow = Ignore::parse("*\n!src/*.c\n").value();
  CHECK(narrow.may_include_below("src"));
  CHECK_FALSE(narrow.may_include_below("src/deep"));
  CHECK_FALSE(narrow.may_include_below("node_modules"));
}

TEST_CASE("a filtered tree shows what is let in, and folders only with something in them") {
  MemoryTree tree;
  tree.file("a/b/x.txt", "x").file("a/b/x.c", "c").file("a/d/y", "y").file("big/one", "1");
  tree.file("top", "t");
  const Ignore ignore = Ignore::parse("a\nbig\n!a/b/*.txt\n").value();
  const auto filtered = builder::filter_tree(tree, ignore);
  CHECK(names(*filtered, "") == "a top ");
  CHECK(names(*filtered, "a") == "b ");
  CHECK(names(*filtered, "a/b") == "x.txt ");
  CHECK(filtered->node("a/b/x.txt"));
  CHECK(filtered->node("a/b/x.c").error().code() == base::ErrorCode::NotFound);
  CHECK(filtered->node("a/d").error().code() == base::ErrorCode::NotFound);
  CHECK(filtered->list("big").error().code() == base::ErrorCode::NotFound);
  CHECK_FALSE(filtered->read("a/b/x.c", [](std::string_view) { return base::Result<>(); }));
  CHECK(tree.listed.count("big") == 0);
}
