#include <doctest/doctest.h>

#include "builder/test_tree.h"

using builder::resolve_links;
using builder_test::MemoryTree;

TEST_CASE("links are followed inside the tree, absolute ones from its root") {
  MemoryTree tree;
  tree.file("usr/bin/tool", "x").link("bin", "usr/bin").link("etc/tool", "/bin/tool");
  CHECK(resolve_links(tree, "bin/tool").value() == "usr/bin/tool");
  CHECK(resolve_links(tree, "etc/tool").value() == "usr/bin/tool");
  CHECK(resolve_links(tree, "/bin/./../bin//tool").value() == "usr/bin/tool");
}

TEST_CASE("no link leads out of the tree") {
  MemoryTree tree;
  tree.file("etc/passwd", "x").link("out", "../../../etc/passwd").link("up", "/..");
  CHECK(resolve_links(tree, "out").value() == "etc/passwd");
  CHECK(resolve_links(tree, "up/etc/passwd").value() == "etc/passwd");
  CHECK(resolve_links(tree, "../../etc").value() == "etc");
}

TEST_CASE("a loop of links is an error, a missing name NotFound unless it may be missing") {
  MemoryTree tree;
  tree.link("a", "b").link("b", "a").link("dangling", "var/new");
  CHECK(resolve_links(tree, "a").error().code() == base::ErrorCode::InvalidArgument);
  CHECK(resolve_links(tree, "dangling/x").error().code() == base::ErrorCode::NotFound);
  CHECK(resolve_links(tree, "dangling/x", true).value() == "var/new/x");
}

TEST_CASE("a tree that remembers nothing reads a file for its digest") {
  MemoryTree tree;
  tree.file("empty", "");
  CHECK(tree.content_digest("empty").value() ==
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}
