#include "builder/lower.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "base/json.h"

namespace {

using builder::ImageConfig;
using nlohmann::json;

const image::Platform amd64{.os = "linux", .architecture = "amd64", .variant = {}};
const image::Platform arm64{.os = "linux", .architecture = "arm64", .variant = {}};

struct Lowered {
  builder::LoweredStage stage;
  json config() const { return stage.config.document().at("config"); }
};

base::Result<Lowered> lower_on(json base, const std::string& text,
                               const std::map<std::string, std::string>& given = {}) {
  const builder::SourceText source{.name = "Dockerfile", .text = text};
  const builder::Parsed parsed = builder::parse_dockerfile(text);
  REQUIRE(parsed.ok());
  const auto arguments = builder::make_arguments(parsed.file, source, given, arm64, amd64);
  if (!arguments) return tl::unexpected<base::Error>(arguments.error());
  auto stage = builder::lower_stage(parsed.file, parsed.file.stages.back(),
                                    *ImageConfig::from_json(std::move(base)), *arguments, source);
  if (!stage) return tl::unexpected<base::Error>(stage.error());
  return Lowered{std::move(*stage)};
}

json base_config() {
  return {{"architecture", "arm64"},
          {"os", "linux"},
          {"config", {{"Env", {"PATH=/bin"}}, {"Cmd", {"sh"}}}},
          {"rootfs", {{"type", "layers"}, {"diff_ids", json::array()}}}};
}

Lowered lower(const std::string& text, const std::map<std::string, std::string>& given = {}) {
  auto lowered = lower_on(base_config(), text, given);
  REQUIRE_MESSAGE(lowered, lowered.error().to_string());
  return *lowered;
}

const builder::RunWork& run_of(const Lowered& lowered, size_t step) {
  return std::get<builder::RunWork>(lowered.stage.steps.at(step).work);
}

}  // namespace

TEST_CASE("instructions change the configuration as Docker's do") {
  const Lowered lowered = lower(R"(FROM x
LABEL a=1 b="two words"
ENV HOME=/root GREETING="hello"
ENV GREETING=hi
WORKDIR /srv
WORKDIR app
USER 1000:1000
EXPOSE 80 53/udp 8000-8002/tcp
VOLUME ["/data"]
STOPSIGNAL SIGINT
SHELL ["/bin/bash", "-e", "-c"]
HEALTHCHECK --interval=5s --timeout=2s --retries=4 CMD test -e /ok
ONBUILD RUN echo later
ENTRYPOINT ["/app"]
CMD serve
)");

  CHECK(lowered.config() == base::parse_json(R"({
    "Cmd": ["/bin/bash", "-e", "-c", "serve"],
    "Entrypoint": ["/app"],
    "Env": ["PATH=/bin", "HOME=/root", "GREETING=hi"],
    "ExposedPorts": {"53/udp": {}, "80/tcp": {}, "8000/tcp": {}, "8001/tcp": {}, "8002/tcp": {}},
    "Healthcheck": {"Interval": 5000000000, "Retries": 4, "Test": ["CMD-SHELL", "test -e /ok"],
                    "Timeout": 2000000000},
    "Labels": {"a": "1", "b": "two words"},
    "OnBuild": ["RUN echo later"],
    "Shell": ["/bin/bash", "-e", "-c"],
    "StopSignal": "SIGINT",
    "User": "1000:1000",
    "Volumes": {"/data": {}},
    "WorkingDir": "/srv/app"})")
                                .value());
}

TEST_CASE("an entrypoint forgets the base's command, but not the stage's own") {
  CHECK_FALSE(lower("FROM x\nENTRYPOINT [\"a\"]\n").config().contains("Cmd"));
  CHECK(lower("FROM x\nCMD [\"c\"]\nENTRYPOINT [\"a\"]\n").config().at("Cmd") == json{"c"});
}

TEST_CASE("a health check that is none says so") {
  CHECK(lower("FROM x\nHEALTHCHECK NONE\n").config().at("Healthcheck") == json{{"Test", {"NONE"}}});
}

TEST_CASE("a variable of the environment goes before an argument of its name") {
  const Lowered lowered = lower("FROM x\nENV V=env\nARG V=arg\nLABEL v=$V\nRUN true\n");

  CHECK(lowered.config().at("Labels").at("v") == "env");
  CHECK(run_of(lowered, 3).environment == std::vector<std::string>{"PATH=/bin", "V=env"});
}

TEST_CASE("arguments reach a RUN once they are declared, and no history") {
  const Lowered lowered =
      lower("FROM x\nRUN first\nARG T\nRUN second $T\n", {{"T", "CANARY"}, {"OTHER", "no"}});

  CHECK(run_of(lowered, 0).environment == std::vector<std::string>{"PATH=/bin"});
  CHECK(run_of(lowered, 2).environment == std::vector<std::string>{"PATH=/bin", "T=CANARY"});
  CHECK(lowered.stage.steps[2].created_by == "RUN /bin/sh -c second $T");
  CHECK(lowered.stage.consumed == std::vector<std::string>{"T"});
  CHECK(lowered.config().dump().find("CANARY") == std::string::npos);
}

TEST_CASE("global arguments need to be declared again, and platforms too") {
  const Lowered lowered = lower(
      "ARG VERSION=3\nFROM x\nARG VERSION\nARG TARGETARCH\nARG BUILDPLATFORM\n"
      "LABEL v=$VERSION a=$TARGETARCH b=$BUILDPLATFORM none=$TARGETOS\n");

  CHECK(lowered.config().at("Labels") ==
        json{{"v", "3"}, {"a", "arm64"}, {"b", "linux/amd64"}, {"none", ""}});
}

TEST_CASE("proxies are given to steps and to no key") {
  const Lowered lowered = lower("FROM x\nRUN true\n", {{"HTTP_PROXY", "http://secret@p"}});

  CHECK(run_of(lowered, 0).environment == std::vector<std::string>{"PATH=/bin"});
  CHECK(run_of(lowered, 0).hidden_environment ==
        std::vector<std::string>{"HTTP_PROXY=http://secret@p"});
}

TEST_CASE("triggers of the base run first, and are not passed on") {
  json base = base_config();
  base["config"]["OnBuild"] = {"ENV A=1", "RUN echo $A"};

  const auto lowered = lower_on(base, "FROM x\nENV A=2\n");

  REQUIRE(lowered);
  CHECK(lowered->stage.steps.size() == 3);
  CHECK(run_of(*lowered, 1).environment == std::vector<std::string>{"PATH=/bin", "A=1"});
  CHECK_FALSE(lowered->config().contains("OnBuild"));
}

TEST_CASE("a here document is the shell's text, or a program of its own") {
  const Lowered lowered =
      lower("FROM x\nRUN <<EOF\necho a\necho b\nEOF\nRUN <<EOF\n#!/bin/python\nprint(1)\nEOF\n");

  CHECK(run_of(lowered, 0).arguments ==
        std::vector<std::string>{"/bin/sh", "-c", "echo a\necho b\n"});
  CHECK(run_of(lowered, 1).script == "#!/bin/python\nprint(1)\n");
}

TEST_CASE("an error shows its line") {
  const auto lowered = lower_on(base_config(), "FROM x\nEXPOSE ${PORT:-nowhere}\n");

  REQUIRE_FALSE(lowered);
  const std::string text = lowered.error().to_string();
  CHECK(text.find("Dockerfile:2") != std::string::npos);
  CHECK(text.find("EXPOSE ${PORT:-nowhere}") != std::string::npos);
  CHECK(text.find("'nowhere' is no port") != std::string::npos);
}
