#include "image/reference.h"

#include <doctest/doctest.h>

using image::parse_reference;

TEST_CASE("short names are completed, and shown short again") {
  const auto full = [](const char* text) { return parse_reference(text).value().full(); };
  CHECK(full("alpine") == "docker.io/library/alpine:latest");
  CHECK(full("alpine:3.20") == "docker.io/library/alpine:3.20");
  CHECK(full("user/app") == "docker.io/user/app:latest");
  CHECK(full("localhost/hello:1") == "localhost/hello:1");
  CHECK(full("localhost:5000/a/b:x") == "localhost:5000/a/b:x");
  CHECK(full("[::1]:5000/a") == "[::1]:5000/a:latest");
  CHECK(full("index.docker.io/alpine") == "docker.io/library/alpine:latest");
  CHECK(parse_reference("alpine").value().display() == "alpine:latest");
  CHECK(parse_reference("docker.io/user/app:2").value().display() == "user/app:2");
}

TEST_CASE("a digest decides over a tag") {
  const std::string digest = "sha256:" + std::string(64, 'a');
  const auto parsed = parse_reference("ghcr.io/a/b:tag@" + digest).value();
  CHECK(parsed.tag.empty());
  CHECK(parsed.full() == "ghcr.io/a/b@" + digest);
}

TEST_CASE("what is no reference is refused, saying which part") {
  for (const char* text :
       {"", "Upper", "a//b", "a/", "/a", "a:", "a:-tag", "a@sha256:12", "a@md5:x", "a b",
        "a:t/b:", "-a", "a___b", "a..b", "host:port/a", "../../etc", "a\nb"})
    CHECK_MESSAGE(!parse_reference(text), text);
  CHECK(parse_reference("My/App").error().to_string().find("My") != std::string::npos);
  CHECK_FALSE(parse_reference(std::string(5000, 'a')));
}
