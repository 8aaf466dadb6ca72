#include "base/repository.h"

#include <doctest/doctest.h>

#include "base/fields.h"

using base::parse_repository;

TEST_CASE("a repository is known by its address") {
  CHECK(base::is_repository("https://h/x.git"));
  CHECK(base::is_repository("http://h/x.git#main:folder"));
  CHECK(base::is_repository("git://h/x"));
  CHECK(base::is_repository("ssh://git@h/x"));
  CHECK(base::is_repository("git@h:x/y.git"));
  CHECK_FALSE(base::is_repository("https://h/x.tar.gz"));
  CHECK_FALSE(base::is_repository("https://h/x#.git"));
  CHECK_FALSE(base::is_repository("./git@h"));
  CHECK(base::repository_context("github.com/a/b#v1") == "https://github.com/a/b#v1");
  CHECK(base::repository_context("./github.com/a").empty());
}

TEST_CASE("an address names a ref and a folder, both, or neither") {
  const auto parts = [](std::string_view address) {
    const base::RepositoryAddress parsed = parse_repository(address);
    return parsed.url + "|" + parsed.ref + "|" + parsed.folder;
  };
  CHECK(parts("https://h/x.git") == "https://h/x.git||");
  CHECK(parts("https://h/x.git#") == "https://h/x.git||");
  CHECK(parts("https://h/x.git#v1") == "https://h/x.git|v1|");
  CHECK(parts("https://h/x.git#:a/b") == "https://h/x.git||a/b");
  CHECK(parts("git@h:x.git#refs/pull/1/head:a:b") == "git@h:x.git|refs/pull/1/head|a:b");
}

TEST_CASE("fields with commas are pairs, the last of a key counts") {
  CHECK(base::comma_fields("type=local,src=/x=y,flag,type=other") ==
        std::map<std::string, std::string>{{"type", "other"}, {"src", "/x=y"}, {"flag", ""}});
}
