/// Stack files made to hurt: each is refused, or read as it says, within bounds of time and memory.

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <map>
#include <string>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <pthread.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "spec/interpolate.h"
#include "spec/load.h"

namespace {

// Sanitizers and builds without optimisation cost a multiple in time, memory and stack.
constexpr int slack = CONTAINER_TEST_SLACK;
constexpr size_t small_stack_bytes = slack * 256u << 10;
constexpr long refusal_ms_max = slack * 300;  // some 10 to 140 where it was measured
constexpr long memory_kb_max = slack * (64 << 10);

constexpr const char* yaml_file = "/p/shop/compose.yaml";
constexpr const char* toml_file = "/p/shop/stack.toml";

using Files = std::map<std::string, std::string>;

spec::Loaded load(const Files& files, const std::string& file = yaml_file,
                  const std::map<std::string, std::string>& environment = {}) {
  spec::LoadOptions options;
  options.files = {file};
  options.home_directory = "/home/me";
  options.environment = environment;
  options.read_file = [&](const std::string& path) -> base::Result<std::string> {
    const auto found = files.find(path);
    if (found == files.end()) return base::fail(base::ErrorCode::NotFound, "no file '{}'", path);
    return found->second;
  };
  return spec::load(options);
}

spec::Loaded yaml(const std::string& text) { return load({{yaml_file, text}}); }

/// `line:column summary` of each error.
std::string errors(const spec::Loaded& loaded) {
  std::string all;
  for (const spec::Diagnostic& one : loaded.diagnostics)
    if (one.severity == spec::Severity::Error)
      all += fmt::format("{}:{} {}\n", one.position.line, one.position.column, one.summary);
  return all;
}

std::string times(size_t count, std::string_view piece) {
  std::string text;
  text.reserve(count * piece.size());
  for (size_t i = 0; i < count; ++i) text += piece;
  return text;
}

struct Cost {
  bool held = false;  ///< What was run said so.
  long cpu_ms = 0;
  long memory_kb = 0;  ///< The most it had at once, with the program itself.
};

/// In a process of its own, since a peak of memory is one of a process.
Cost cost_of(const std::function<bool()>& run) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) ::_exit(run() ? 0 : 1);
  int status = 0;
  rusage used{};
  REQUIRE(::wait4(child, &status, 0, &used) == child);
  const auto ms = [](const timeval& time) { return time.tv_sec * 1000 + time.tv_usec / 1000; };
  return {.held = WIFEXITED(status) && WEXITSTATUS(status) == 0,
          .cpu_ms = ms(used.ru_utime) + ms(used.ru_stime),
          .memory_kb = used.ru_maxrss};
}

void check_refused_cheaply(const std::string& file, const std::string& text,
                           std::string_view because, long cpu_ms_max = refusal_ms_max) {
  const std::string start = text.substr(0, 40);
  const Cost cost = cost_of([&] {
    const spec::Loaded loaded = load({{file, text}}, file);
    return !loaded.stack && errors(loaded).find(because) != std::string::npos;
  });
  CHECK_MESSAGE(cost.held, start);
  CHECK_MESSAGE(cost.cpu_ms <= cpu_ms_max, start);
  CHECK_MESSAGE(cost.memory_kb <= memory_kb_max, start);
}

/// Runs on a thread with little stack: what recurses without end dies here.
void on_small_stack(const std::function<void()>& run) {
  pthread_attr_t attributes;
  REQUIRE(::pthread_attr_init(&attributes) == 0);
  REQUIRE(::pthread_attr_setstacksize(&attributes, small_stack_bytes) == 0);
  const auto start = [](void* what) -> void* {
    (*static_cast<const std::function<void()>*>(what))();
    return nullptr;
  };
  pthread_t thread{};
  auto* argument = const_cast<std::function<void()>*>(&run);
  REQUIRE(::pthread_create(&thread, &attributes, start, argument) == 0);
  REQUIRE(::pthread_join(thread, nullptr) == 0);
  ::pthread_attr_destroy(&attributes);
}

/// Nine levels of ten aliases each, `last` using the last.
std::string laughs(std::string_view last) {
  std::string text = "x-0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n";
  for (int i = 1; i < 9; ++i)
    text +=
        fmt::format("x-{}: &a{} [{}*a{}]\n", i, i, times(9, fmt::format("*a{}, ", i - 1)), i - 1);
  return text + std::string(last);
}

}  // namespace

TEST_CASE("copies of copies end at the bound: aliases, anchors by the million, merge keys") {
  constexpr const char* too_large = "too large once its aliases are filled in";
  check_refused_cheaply(yaml_file, laughs("services: {a: {image: *a8}}\n"), too_large);
  check_refused_cheaply(yaml_file, "x: [" + times(600'000, "&a b,") + "]\n", too_large);
  std::string merges = "x-0: &m0 {k0: 1}\n";
  for (int i = 1; i < 40; ++i)
    merges += fmt::format("x-{}: &m{} {{<<: [*m{}, *m{}], k{}: {{<<: *m{}, x: *m{}}}}}\n", i, i,
                          i - 1, i - 1, i, i - 1, i - 1);
  check_refused_cheaply(yaml_file, merges, too_large);
  check_refused_cheaply(yaml_file,
                        "services: {a: {image: &i " + times(100'000, "x") + ", labels: {" +
                            times(1, "k: *i") + ", e: [" + times(9'000, "*i,") + "]}}}",
                        too_large);
}

TEST_CASE("an anchor cannot hold itself") {
  CHECK(errors(yaml("services: &a {b: *a}\n")) == "1:18 an alias stands inside what it names\n");
}

TEST_CASE("what is nested without end is refused on a small stack, in every language") {
  constexpr size_t many = 100'000;
  on_small_stack([&] {
    for (const char* piece : {"[", "{a: ", "- ", "? ", "a: [", "- - ", "{? ", "[[a]: "})
      CHECK_MESSAGE(errors(yaml(times(many, piece))).find("nested too deeply") != std::string::npos,
                    std::string(piece));
    for (const char* piece :
         {"&a ", "!b ", "'", "\"", "]", "}", ",", "*a ", "|\n", "\n  ", "%", "@"})
      CHECK_MESSAGE(!yaml(times(many, piece)).stack, std::string(piece));
    std::string stairs;
    for (size_t i = 0; i < 1'000; ++i) stairs += std::string(i, ' ') + "a:\n";
    CHECK(errors(yaml(stairs)).find("nested too deeply") != std::string::npos);
    for (const std::string& text :
         {"a = " + times(many, "["), "a = " + times(many, "{a = "), times(2 * many, "a.") + "b = 1",
          "[" + times(many, "a.") + "a]", times(many, "["), "[[" + times(many, "a . ") + "b]]",
          "a = [{b." + times(many, "c.") + "d = 1}]"}) {
      const spec::Loaded loaded = load({{toml_file, text}}, toml_file);
      CHECK_MESSAGE(errors(loaded).find("nested too deeply") != std::string::npos,
                    text.substr(0, 20));
    }
    CHECK_FALSE(base::parse_json(times(1'000'000, "[")));
    CHECK_FALSE(base::parse_json(times(1'000'000, "{\"a\":")));
  });
}

TEST_CASE("what is nested as deeply as allowed is read on a small stack") {
  const auto inside = [](size_t depth) { return times(depth, "[") + times(depth, "]"); };
  on_small_stack([&] {
    CHECK(yaml("services: {a: {image: x}}\nx-deep: " + inside(126)).stack);
    CHECK(load({{toml_file, "x-deep = " + inside(31) + "\n[services.a]\nimage = 'x'\n"}}, toml_file)
              .stack);
  });
}

TEST_CASE("odd scalars stay what they look like, or are told with their place") {
  const auto service = [](const std::string& inside) {
    return yaml("services:\n  a:\n    image: x\n    " + inside + "\n");
  };
  const spec::Loaded ports = service("ports: [22:22, 2222:22/udp]");
  REQUIRE_MESSAGE(ports.stack, errors(ports));
  CHECK(ports.stack->services.at("a").ports[0].published == 22);
  CHECK(ports.stack->services.at("a").ports[1].published == 2222);
  const spec::Loaded words = service("environment: {A: yes, B: no, C: 1e3, D: 010, E: 0x1F, F: ~}");
  REQUIRE_MESSAGE(words.stack, errors(words));
  const spec::Environment& environment = words.stack->services.at("a").environment;
  CHECK(environment.at("A") == "yes");
  CHECK(environment.at("B") == "no");
  CHECK(environment.at("C") == "1e3");
  CHECK(environment.at("D") == "010");
  CHECK(environment.at("E") == "0x1F");
  CHECK_FALSE(environment.at("F"));
  CHECK(service("restart: no").stack);
  CHECK(service("container_name: no").stack);
  CHECK(errors(service("mem_limit: 1e3")) == "4:16 not an amount of bytes\n");
  CHECK(errors(service("cpus: 0x2")) == "4:11 '0x2' is not a number of processors\n");
  CHECK(errors(service("hostname: 1")) == "4:15 must be a text\n");
  CHECK(errors(service("scale: 1.5")) == "4:12 must be a whole number\n");
  CHECK(errors(service("tty: maybe")) == "4:10 must be true or false\n");
  CHECK(errors(service("image: y")) == "4:5 mapping key 'image' is written twice\n");
  CHECK(errors(service("1: y")) == "4:5 a key must be a text\n");
  CHECK(errors(service("true: y")) == "4:5 a key must be a text\n");
}

TEST_CASE("bytes that are no text are told with their place; line ends and a mark are not") {
  CHECK(errors(yaml("services:\n  a: {image: \"x\x01\"}\n")) == "2:16 control byte 0x01\n");
  CHECK(errors(yaml(std::string("services:\0 1\n", 13))) == "1:10 control byte 0x00\n");
  CHECK(errors(yaml("services:\n  a: {image: \xC3\x28}\n")) == "2:14 not valid UTF-8\n");
  CHECK(errors(yaml("\xFF\xFEs")) == "1:1 not valid UTF-8\n");
  CHECK(errors(yaml("services:\n\ta: {image: x}\n")).starts_with("2:"));
  CHECK(yaml("services:\r\n  a:\r\n    image: x\r\n").stack->services.at("a").image == "x");
  CHECK(yaml("\xEF\xBB\xBFservices: {a: {image: x}}").stack);
  CHECK(load({{toml_file, "\xEF\xBB\xBF[services.a]\r\nimage = 'x'\r\n"}}, toml_file).stack);
}

TEST_CASE("a document that begins with what no value begins with does not go on for ever") {
  CHECK(errors(yaml(", on one\n")).find("not valid YAML") != std::string::npos);
  for (const char* text : {"]", "}", ",", ": ", "services: {a: {image: x}}\n,", "--- ,\n--- ,\n"})
    CHECK_MESSAGE(!yaml(text).stack, std::string(text));
}

TEST_CASE("a text that trips the parser of TOML is refused, not fatal") {
  const spec::Loaded loaded =
      load({{toml_file, "#!/bin/sh\nprintf 'x' | nc -w 2 \"$HOST\".\n"}}, toml_file);
  CHECK_FALSE(loaded.stack);
  CHECK(errors(loaded).find("not valid TOML") != std::string::npos);
}

TEST_CASE("names lead nowhere but to what they name") {
  for (const char* text :
       {"name: ../../x\nservices: {a: {image: x}}", "services: {../../a: {image: x}}",
        "services: {a: {image: x, container_name: ../a}}", "services: {a: {image: ../x/./$$(id)}}",
        "services: {a: {image: x, volumes: ['../../v/..:/t:evil']}}",
        "services: {a: {image: x, volumes: [{type: volume, source: ../v, target: /t}]}}",
        "services: {a: {image: x, volumes: ['~root/x:/t']}}",
        "services: {a: {image: x, volumes: ['v:/..']}}\nvolumes: {v: {}}",
        "services: {a: {image: x}}\nvolumes: {v: {name: ../v}}",
        "services: {a: {image: x}}\nvolumes: {../v: {}}",
        "services: {a: {image: x}}\nnetworks: {n: {name: /n}}",
        "services: {a: {image: x}}\nnetworks: {../n: {}}",
        "services: {a: {image: x, hostname: ../h}}",
        "services: {a: {image: x, networks: {default: {aliases: [../h]}}}}"}) {
    const spec::Loaded loaded = yaml(text);
    CHECK_MESSAGE(!loaded.stack, std::string(text));
    CHECK_MESSAGE(!errors(loaded).starts_with("0:"), std::string(text));
  }
  CHECK_FALSE(yaml("name: " + times(100, "n") + "\nservices: {a: {image: x}}").stack);
}

/// As with Compose, a file of this host may name any path its reader may read; but nothing is
/// fetched from elsewhere, and nothing that other files could bring in is read unasked.
TEST_CASE("only files that are named are read, and addresses are no files") {
  std::vector<std::string> asked;
  spec::LoadOptions options;
  options.files = {yaml_file};
  options.read_file = [&](const std::string& path) -> base::Result<std::string> {
    asked.push_back(path);
    if (path != yaml_file) return base::fail(base::ErrorCode::NotFound, "no file '{}'", path);
    return std::string(
        "include: [https://example.test/evil.yaml, ../other.yaml]\n"
        "configs: {c: {file: ../../etc/shadow}}\n"
        "services:\n"
        "  a: {image: x, extends: {file: oci://example.test/x, service: a},\n"
        "      env_file: [../../../../etc/shadow, 'https://example.test/env']}\n");
  };

  const spec::Loaded loaded = spec::load(options);

  CHECK_FALSE(loaded.stack);
  CHECK(asked == std::vector<std::string>{yaml_file, "/p/shop/.env", "/etc/shadow",
                                          "/p/shop/https:/example.test/env"});
}

TEST_CASE("variables are filled in once, within bounds") {
  const std::map<std::string, std::string> environment = {
      {"NESTED", "${OTHER}$$"}, {"OTHER", "never"}, {"BIG", times(1u << 20, "x")}};
  const spec::Loaded once =
      load({{yaml_file, "services: {a: {image: x, labels: {l: '${NESTED}', d: '$$$${A}'}}}"}},
           yaml_file, environment);
  REQUIRE_MESSAGE(once.stack, errors(once));
  CHECK(once.stack->services.at("a").labels.at("l") == "${OTHER}$$");
  CHECK(once.stack->services.at("a").labels.at("d") == "$${A}");

  const std::string bomb =
      "services: {a: {image: x, labels: {l: '" + times(10'000, "${BIG}") + "'}}}";
  const Cost cost = cost_of([&] {
    const spec::Loaded loaded = load({{yaml_file, bomb}}, yaml_file, environment);
    return !loaded.stack && errors(loaded).find("too long") != std::string::npos;
  });
  CHECK(cost.held);
  CHECK(cost.memory_kb <= memory_kb_max);

  on_small_stack([] {
    const std::string nested = times(10'000, "${A:-") + "x" + times(10'000, "}");
    CHECK(errors(yaml("services: {a: {image: '" + nested + "'}}")).find("nested deeper") !=
          std::string::npos);
    CHECK(errors(yaml("services: {a: {image: '" + times(100'000, "${A:-") + "'}}"))
              .find("invalid interpolation format") != std::string::npos);
  });
  CHECK(errors(yaml("services:\n  a: {image: '${X:?say which}'}\n")) ==
        "2:14 required variable X is missing a value: say which\n");
}

TEST_CASE(
    "files of variables that grow by one another, or are read a thousand times, are bounded") {
  std::string growing = "A0=" + times(1'000, "x") + "\n";
  for (int i = 1; i < 10'000; ++i) growing += fmt::format("A{}=$A{}$A{}\n", i, i - 1, i - 1);
  const std::string big = "A=" + times(4'000'000, "x") + "\n";
  std::string services = "services:\n";
  for (int i = 0; i < 1'000; ++i)
    services += fmt::format("  s{}: {{image: x, env_file: big}}\n", i);
  const auto refused = [](const Files& files, std::string_view because) {
    const spec::Loaded loaded = load(files);
    return !loaded.stack && errors(loaded).find(because) != std::string::npos;
  };

  const Cost grown = cost_of([&] {
    return refused({{yaml_file, "services: {a: {image: x}}"}, {"/p/shop/.env", growing}},
                   "too long");
  });
  const Cost repeated = cost_of([&] {
    return refused({{yaml_file, services}, {"/p/shop/big", big}}, "too large");
  });

  CHECK(grown.held);
  CHECK(grown.cpu_ms <= slack * 500);
  CHECK(repeated.held);
  CHECK(repeated.cpu_ms <= slack * 2'000);
}

TEST_CASE("cycles are named, however long, and nothing extends itself") {
  CHECK(errors(yaml("services:\n  a: {image: x, depends_on: [a]}\n")) ==
        "2:30 dependency cycle detected: a -> a\n");
  CHECK(errors(yaml("services:\n  a: {image: x, depends_on: [b]}\n"
                    "  b: {image: x, depends_on: [a]}\n")) ==
        "3:30 dependency cycle detected: a -> b -> a\n");
  CHECK(errors(yaml("services:\n  a: {image: x, extends: a}\n")) ==
        "2:17 not supported by this version\n");
  std::string ring = "services:\n";
  for (int i = 0; i < 10'000; ++i)
    ring += fmt::format("  s{}: {{image: x, depends_on: [s{}]}}\n", i, (i + 1) % 10'000);
  on_small_stack([&] {
    CHECK(errors(yaml(ring)).find("dependency cycle detected: s0 -> s1 -> s2") !=
          std::string::npos);
  });
}

TEST_CASE("a stack of ten thousand services is read in two seconds, on a small stack") {
  std::string text = "services:\n";
  for (int i = 0; i < 10'000; ++i)
    text += fmt::format("  s{}: {{image: x, command: run {}{}}}\n", i, i,
                        i == 0 ? "" : fmt::format(", depends_on: [s{}]", i - 1));
  const Cost cost = cost_of([&] {
    bool all = false;
    on_small_stack([&] {
      const spec::Loaded loaded = yaml(text);
      all = loaded.stack && loaded.stack->services.size() == 10'000;
    });
    return all;
  });
  CHECK(cost.held);
  CHECK(cost.cpu_ms <= slack * 2'000);
}

/// Each was quadratic, or worse, before it was looked at.
TEST_CASE("a hundred thousand mistakes cost no more than a second") {
  constexpr long second_ms = slack * 1'000;
  const auto keys = [](int count, std::string_view value) {
    std::string text;
    for (int i = 0; i < count; ++i) text += fmt::format("unknown{}: {}, ", i, value);
    return text;
  };
  std::string services;
  for (int i = 0; i < 1'000; ++i) services += fmt::format("s{:04}: {{image: x}}, ", i);
  const std::string first = "services: {a: {image: x, ";
  check_refused_cheaply(yaml_file, first + keys(45'000, "1") + "}}", "more than 1000 problems",
                        second_ms);
  check_refused_cheaply(yaml_file,
                        first + "depends_on: {" + keys(20'000, "{condition: service_started}") +
                            "}}, " + services + "}",
                        "more than 1000 problems", second_ms);
  check_refused_cheaply(yaml_file, first + "networks: {" + keys(45'000, "{}") + "}}}",
                        "joins 45000 networks", second_ms);
  check_refused_cheaply(yaml_file, first + "restart: " + times(1'000'000, "n") + "}}",
                        "is not known here", second_ms);
  check_refused_cheaply(yaml_file, first + "cap_add: [" + times(1'000'000, "n") + "]}}",
                        "is not a capability", second_ms);
  check_refused_cheaply(
      yaml_file, "services: {? " + times(1'000'000, "n") + "\n: {" + keys(40'000, "1") + "}}",
      "the key is too long", second_ms);
  std::string hosts;
  for (int i = 0; i < 60'000; ++i) hosts += fmt::format("h{}=10.0.0.1, ", i);
  const Cost cost =
      cost_of([&] { return yaml(first + "extra_hosts: [" + hosts + "]}}").stack.has_value(); });
  CHECK(cost.held);
  CHECK(cost.cpu_ms <= second_ms);
}

TEST_CASE("what a file brings along is shown without its middle when it is long") {
  const spec::Loaded loaded =
      yaml("services: {a: {image: x, restart: " + times(10'000, "ä") + "}}");
  REQUIRE(loaded.diagnostics.size() == 1);
  const std::string& summary = loaded.diagnostics[0].summary;
  CHECK(summary.size() < 1'100);
  CHECK(summary.starts_with("'ä"));
  CHECK(summary.find("ä…ä") != std::string::npos);
  CHECK(summary.ends_with("ä' is not known here"));
}
