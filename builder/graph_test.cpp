#include "builder/graph.h"

#include <doctest/doctest.h>

namespace {

const image::Platform amd64{.os = "linux", .architecture = "amd64", .variant = {}};
const image::Platform arm64{.os = "linux", .architecture = "arm64", .variant = {}};

base::Result<builder::BuildGraph> graph_of(const std::string& text,
                                           builder::GraphRequest request = {}) {
  if (request.platforms.empty()) request.platforms = {amd64};
  request.host = amd64;
  const builder::Parsed parsed = builder::parse_dockerfile(text);
  REQUIRE(parsed.ok());
  return builder::make_graph(parsed.file, {.name = "Dockerfile", .text = text}, request);
}

/// The nodes in their order, each with what it takes from.
std::string shown(const builder::BuildGraph& graph) {
  std::string all;
  const auto origin = [](const builder::Origin& from) -> std::string {
    switch (from.kind) {
      case builder::Origin::Kind::Scratch: return "scratch";
      case builder::Origin::Kind::Stage: return "#" + std::to_string(from.node);
      case builder::Origin::Kind::Image: return from.name;
      case builder::Origin::Kind::Context: return "context " + from.name;
    }
    return "";
  };
  for (const builder::StageNode& node : graph.nodes) {
    all += node.name + " " + node.platform.text() + " from " + origin(node.base);
    for (const auto& [name, from] : node.sources) all += ", " + name + "=" + origin(from);
    all += "\n";
  }
  return all;
}

constexpr const char* stages = R"(FROM alpine AS build
RUN make
FROM debian AS unused
RUN never
FROM scratch AS final
COPY --from=build /out /
COPY --from=busybox:1 /bin/sh /bin/
RUN --mount=type=bind,from=0,target=/src true
)";

}  // namespace

TEST_CASE("only the stages that the target takes from are built") {
  const auto graph = graph_of(stages);

  REQUIRE(graph);
  CHECK(shown(*graph) ==
        "build linux/amd64 from alpine\n"
        "final linux/amd64 from scratch, 0=#0, build=#0, busybox:1=busybox:1\n");
}

TEST_CASE("a target is a name in any case, or a number") {
  CHECK(shown(*graph_of(stages, {.target = "UNUSED"})) == "unused linux/amd64 from debian\n");
  CHECK(shown(*graph_of(stages, {.target = "0"})) == "build linux/amd64 from alpine\n");
}

TEST_CASE("a target that is no stage is told with the nearest name") {
  const auto graph = graph_of(stages, {.target = "biuld"});

  REQUIRE_FALSE(graph);
  CHECK(graph.error().to_string() == "Dockerfile has no stage 'biuld'; did you mean 'build'?");
}

TEST_CASE("every platform has its own stages, but for those that run where the build does") {
  const auto graph = graph_of(
      "FROM --platform=$BUILDPLATFORM go AS compile\nRUN x\n"
      "FROM alpine\nCOPY --from=compile /x /\n",
      {.platforms = {amd64, arm64}});

  REQUIRE(graph);
  CHECK(shown(*graph) ==
        "compile linux/amd64 from go\n"
        "stage-1 linux/amd64 from alpine, compile=#0\n"
        "compile linux/amd64 from go\n"
        "stage-1 linux/arm64 from alpine, compile=#2\n");
  CHECK(graph->targets == std::vector<size_t>{1, 3});
}

TEST_CASE("a further context goes before a stage or an image of its name") {
  const auto graph =
      graph_of("FROM base\nCOPY --from=lib / /\n",
               {.named_contexts = {{"lib", "/l"}, {"base", "docker-image://alpine:3"}}});

  REQUIRE(graph);
  CHECK(shown(*graph) == " linux/amd64 from alpine:3, lib=context lib\n");
}

TEST_CASE("FROM needs an image once its arguments are filled in") {
  const auto graph = graph_of("ARG BASE\nFROM $BASE\n");

  REQUIRE_FALSE(graph);
  CHECK(graph.error().to_string().find("names no image") != std::string::npos);
}
