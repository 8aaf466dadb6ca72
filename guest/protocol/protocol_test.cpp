#include "guest/protocol/protocol.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "guest/protocol/greeting.h"
#include "guest/protocol/output_frame.h"

using namespace guest;

namespace {

const std::string session_a(32, 'a');
const std::string session_b(32, 'b');
constexpr std::string_view preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame of `payload`: length, type, flags, stream.
std::string frame(std::string_view payload) {
  std::string made = {static_cast<char>(payload.size() >> 16),
                      static_cast<char>(payload.size() >> 8),
                      static_cast<char>(payload.size()),
                      0,
                      0,
                      0,
                      0,
                      0,
                      1};
  return made.append(payload);
}

/// What a splitter makes of the input, fed `piece` bytes at a time: `[greeting]` or the bytes.
std::string split_in_pieces(std::string_view input, size_t piece) {
  SessionSplitter splitter;
  std::string log;
  while (!input.empty()) {
    std::string_view part = input.substr(0, piece);
    input.remove_prefix(part.size());
    while (const auto next = splitter.next(part)) {
      log += next->greeting ? "[" + next->greeting->session.substr(0, 1) + "]"
                            : std::string(next->bytes);
      if (next->greeting) splitter.session_begins();
    }
  }
  return log;
}

}  // namespace

TEST_CASE("a container's configuration survives the way through JSON") {
  ContainerConfig config;
  config.id = "web";
  config.layers = {2, 3};
  config.emulator = {.architecture = "arm64", .partition = 4, .bytes = 1000};
  config.memory_bytes = 0xffff'ffff'ffff'ffffu;
  config.mounts.push_back({.kind = MountKind::Tmpfs, .target = "/tmp", .tmpfs_bytes = 4096});
  config.interfaces.push_back({.mac = "02:00:00:00:00:01", .addresses = {"10.0.0.2/24"}});
  config.process.arguments = {"sh", "-c", "true"};
  config.process.rlimits = {{"nofile", 10, -1}};
  config.sysctls = {{"net.core.somaxconn", "1024"}};
  config.health.test = {"true"};

  const auto json = base::parse_json(base::dump_json(to_json(config)));
  REQUIRE(json);
  const auto read = container_config_from_json(*json);

  REQUIRE(read);
  CHECK(to_json(*read) == to_json(config));
  CHECK(read->memory_bytes == config.memory_bytes);
  CHECK(read->mounts.at(0).kind == MountKind::Tmpfs);
  CHECK(read->process.rlimits.at(0).hard == -1);
}

TEST_CASE("a build step survives the way through JSON, its secrets byte for byte") {
  StepConfig config;
  config.id = "step-1";
  config.process.arguments = {"make"};
  config.network = false;
  config.mounts.push_back({.kind = StepMountKind::Secret,
                           .target = "/run/secrets/key",
                           .mode = 0440,
                           .content = std::string("\0\xff\x10", 3)});
  config.hostname = "build";
  config.extra_hosts = {"db=10.0.0.1"};

  const auto read = step_config_from_json(to_json(config));

  REQUIRE(read);
  CHECK(to_json(*read) == to_json(config));
  CHECK(read->mounts.at(0).content == config.mounts.at(0).content);
}

TEST_CASE("a secret that is no hex digits is refused") {
  const auto odd = step_config_from_json({{"mounts", {{{"content", "abc"}}}}});
  const auto strange = step_config_from_json({{"mounts", {{{"content", "zz"}}}}});

  REQUIRE_FALSE(odd);
  CHECK(odd.error().to_string() == "'content' must be pairs of hex digits");
  CHECK_FALSE(strange);
}

TEST_CASE("an event survives the way through JSON") {
  const Event event{.sequence = 7,
                    .kind = EventKind::OutOfMemory,
                    .process = "main",
                    .exit_code = 137,
                    .signal = 9,
                    .output_bytes = 12,
                    .wall_ns = 5,
                    .health = HealthStatus::Unhealthy,
                    .detail = "no"};

  const auto read = event_from_json(to_json(event));

  REQUIRE(read);
  CHECK(to_json(*read) == to_json(event));
}

TEST_CASE("a member of the wrong type is refused by name") {
  const auto read = container_config_from_json({{"shm_bytes", -1}});
  const auto wrong = exec_config_from_json({{"id", 5}});
  const auto kind = event_from_json({{"kind", "vanished"}});

  REQUIRE_FALSE(read);
  CHECK(read.error().to_string() == "'shm_bytes' is out of range");
  REQUIRE_FALSE(wrong);
  CHECK(wrong.error().to_string() == "'id' must be a text");
  REQUIRE_FALSE(kind);
  CHECK(kind.error().to_string() == "'kind' cannot be 'vanished'");
}

TEST_CASE("a text with a zero byte inside is refused") {
  const auto read = exec_config_from_json({{"process", {{"arguments", {std::string("a\0b", 3)}}}}});

  REQUIRE_FALSE(read);
  CHECK(read.error().to_string() == "'arguments' contains a zero byte");
}

TEST_CASE("output frames are put together from single bytes") {
  std::string wire;
  append_output_frame({output_stream_stdout, 0, "hello"}, wire);
  append_output_frame({output_stream_stderr, 0x1'0000'0005, std::string_view("\0\xff", 2)}, wire);
  OutputFrameDecoder decoder;
  std::string seen;

  for (const char byte : wire)
    REQUIRE(decoder.feed({&byte, 1}, [&](const OutputFrame& frame) -> base::Result<> {
      seen += fmt::format("{}@{}:{};", frame.stream, frame.offset, frame.payload.size());
      return {};
    }));

  CHECK(seen == "1@0:5;2@4294967301:2;");
  CHECK(decoder.at_boundary());
}

TEST_CASE("an output frame longer than the limit or of a strange stream is an error") {
  const auto ignore = [](const OutputFrame&) -> base::Result<> { return {}; };
  OutputFrameDecoder first;
  OutputFrameDecoder second;

  CHECK_FALSE(first.feed(std::string("\x01\0\0\0\0\0\0\0\0\xff\xff\xff\xff", 13), ignore));
  CHECK_FALSE(second.feed(std::string("\x07\0\0\0\0\0\0\0\0\0\0\0\0", 13), ignore));
}

TEST_CASE("a greeting is read back as it was written, and nothing else is one") {
  const Greeting greeting{session_a, 42};

  CHECK(parse_greeting(format_greeting(greeting)) == greeting);
  CHECK_FALSE(parse_greeting("container-agent hello aa 1\n"));
  CHECK_FALSE(parse_greeting("container-agent hello " + session_a + " -1\n"));
  CHECK_FALSE(parse_greeting("container-agent hello " + session_a + " 99999999999999999999\n"));
  CHECK_FALSE(parse_greeting("container-agent hello " + session_a + " 1"));
  CHECK_FALSE(parse_greeting("container-agent hello " + std::string(32, 'G') + " 1\n"));
}

TEST_CASE("a greeting is found behind the remnants of an older session, however cut") {
  const std::string input = "gark cont\ncontainer-agent hello x\nc" +
                            format_greeting({session_a, 1}) + std::string(preface) + frame("data");

  const std::string expected = "[a]" + std::string(preface) + frame("data");
  CHECK(split_in_pieces(input, 1) == expected);
  CHECK(split_in_pieces(input, 7) == expected);
  CHECK(split_in_pieces(input, 1000) == expected);
}

TEST_CASE("a greeting between two frames begins a new session") {
  const std::string input = format_greeting({session_a, 1}) + std::string(preface) + frame("one") +
                            format_greeting({session_b, 1}) + std::string(preface) + frame("two");

  CHECK(split_in_pieces(input, 3) ==
        "[a]" + std::string(preface) + frame("one") + "[b]" + std::string(preface) + frame("two"));
}

TEST_CASE("a greeting spelled by a user's bytes inside a frame is data") {
  const std::string spelled = format_greeting({session_b, 99});
  const std::string input = format_greeting({session_a, 1}) + std::string(preface) +
                            frame("x" + spelled) + frame(spelled + "y");

  CHECK(split_in_pieces(input, 5) ==
        "[a]" + std::string(preface) + frame("x" + spelled) + frame(spelled + "y"));
}

TEST_CASE("a greeting that ends the input inside a cut frame is offered to the caller") {
  SessionSplitter splitter;
  splitter.session_begins();
  const std::string cut = std::string(preface) + frame(std::string(1000, 'x')).substr(0, 500);
  const std::string bytes = cut + format_greeting({session_b, 3});
  std::string_view input = bytes;

  while (splitter.next(input)) {
  }

  CHECK(splitter.greeting_at_end() == Greeting{session_b, 3});
  std::string_view more = "more of the frame";
  while (splitter.next(more)) {
  }
  CHECK_FALSE(splitter.greeting_at_end());
}
