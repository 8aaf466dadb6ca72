/// Whole builds with a real store, and machines that only seem to run what they are told.

#include <filesystem>
#include <fstream>

#include <fcntl.h>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/overloaded.h"
#include "base/text.h"
#include "builder/build.h"
#include "image/decompress.h"
#include "image/images.h"
#include "image/test_archive.h"

namespace {

using nlohmann::json;
namespace fs = std::filesystem;

const image::Platform amd64{.os = "linux", .architecture = "amd64", .variant = {}};

/// What a machine was told, and what it pretends.
struct World {
  std::vector<std::string> log;  ///< `start`, `layer`, `run echo a`, `stop`
  std::vector<reconciler::BuildStep> steps;
  std::vector<builder::MachineShare> shares;
  std::vector<std::string> trees;  ///< Tars of what was mounted.
  int counter = 0;
};

/// `sh -c "write NAME TEXT"` makes a file, `fail N` ends so, `say TEXT` prints; all else does
/// nothing.
class FakeSession final : public reconciler::BuildSession {
 public:
  explicit FakeSession(World& world) : world_(world) {}
  base::Result<> add_layer(const std::string&, const reconciler::ByteProducer& tar) override {
    TRY(drain(tar));
    world_.log.emplace_back("layer");
    return {};
  }
  base::Result<> add_tree(const std::string&, const reconciler::ByteProducer& tar) override {
    world_.trees.push_back(TRY(drain(tar)));
    world_.log.emplace_back("tree");
    return {};
  }
  base::Result<int32_t> run(const reconciler::BuildStep& step,
                            const reconciler::OutputSink& sink) override {
    world_.steps.push_back(step);
    const std::string text = step.arguments.back();
    world_.log.push_back("run " + text);
    const std::vector<std::string> words = base::split(text, ' ');
    members_.clear();
    if (words[0] == "write") members_.push_back({.name = words.at(1), .content = words.at(2)});
    if (words[0] == "count")
      members_.push_back({.name = "count", .content = std::to_string(++world_.counter)});
    if (words[0] == "say") sink(1, words.at(1) + "\n");
    if (words[0] != "fail") return 0;
    sink(2, "it went wrong\n");
    return std::stoi(words.at(1));
  }
  base::Result<> take_layer(const std::string&, const reconciler::ByteConsumer& tar) override {
    return tar(image_test::tar(members_));
  }
  void cancel() override {}

 private:
  static base::Result<std::string> drain(const reconciler::ByteProducer& tar) {
    std::string all;
    std::string buffer(4096, '\0');
    while (const size_t count = TRY(tar(buffer.data(), buffer.size())))
      all.append(buffer, 0, count);
    return all;
  }
  World& world_;
  std::vector<image_test::Member> members_;
};

class FakeMachine final : public builder::BuildMachine {
 public:
  explicit FakeMachine(World& world) : world_(world), session_(world) {}
  ~FakeMachine() override { world_.log.emplace_back("stop"); }
  reconciler::BuildSession& session() override { return session_; }

 private:
  World& world_;
  FakeSession session_;
};

class FakeMachines final : public builder::BuildMachines {
 public:
  explicit FakeMachines(World& world) : world_(world) {}
  base::Result<std::unique_ptr<builder::BuildMachine>> start(
      const builder::MachineRequest& request) override {
    world_.log.emplace_back("start");
    world_.shares = request.shares;
    return std::make_unique<FakeMachine>(world_);
  }

 private:
  World& world_;
};

/// A system with one base image, a context and a cache.
class Bench {
 public:
  Bench() : root_(fs::temp_directory_path() / ("build-" + base::random_hex(8))) {
    fs::create_directories(root_ / "context");
    fs::create_directories(root_ / "work");
    images_ = std::move(*image::Images::open({.root = root_ / "images"}));
    cache_ = builder::Cache::open(root_ / "cache.json", 1u << 30);
    images_->store().set_users(
        [this]() -> base::Result<std::set<std::string>> { return cache_->digests(); });
    load_base("1");
  }
  ~Bench() {
    images_.reset();
    fs::remove_all(root_);
  }

  void load_base(const std::string& content, const json& its_config = {{"Cmd", {"sh"}}}) {
    image_test::TestImage base;
    base.name = "localhost/base:1";
    base.config = its_config;
    base.layers = {image_test::tar({{.name = "etc/", .type = '5', .mode = 0755},
                                    {.name = "etc/version", .content = content}})};
    REQUIRE(
        images_->load(image_test::source_of(image_test::tar(image_test::oci_members(base))), {}));
  }
  void file(const std::string& name, const std::string& content) {
    fs::create_directories((root_ / "context" / name).parent_path());
    std::ofstream(root_ / "context" / name) << content;
  }
  fs::path context() const { return root_ / "context"; }

  base::Result<builder::BuildResult> build(const std::string& dockerfile,
                                           builder::BuildRequest request = {}) {
    world.log.clear();
    vertices.clear();
    warnings.clear();
    output.clear();
    fetched.clear();
    request.context_folder = root_ / "context";
    request.dockerfile = dockerfile;
    request.platforms = {amd64};
    request.host = amd64;
    FakeMachines machines(world);
    const builder::BuildPorts ports{
        .store = images_->store(),
        .cache = *cache_,
        .machines = machines,
        .fetch_image = [this](const builder::ImageWanted& wanted,
                              const builder::StepNote& tell) -> base::Result<image::Descriptor> {
          fetched.push_back(wanted);
          tell("brought " + wanted.reference);
          return image::descriptor_from_json(
              TRY(images_->inspect(wanted.reference)).at("descriptor"));
        },
        .work_folder = root_ / "work",
        .digest_file = root_ / "digests",
        .cache_folder = root_ / "mounts",
        .now_s = ++now_s_};
    builder::Cancellation cancellation;
    auto result = builder::build(
        request, ports, [this](const builder::BuildEvent& event) { note(event); }, cancellation);
    if (result) {
      const auto manifest = image::read_manifest(images_->store(), result->image).value();
      config = image::read_json(images_->store(), manifest.config, 1u << 20).value();
      layers = manifest.layers.size();
      digest = result->image.digest;
    }
    return result;
  }

  /// Everything that a build left in the store and its folders holds no such text.
  bool has_trace_of(const std::string& text) {
    (void)cache_->save();
    for (const auto& entry : fs::recursive_directory_iterator(root_)) {
      if (!entry.is_regular_file() || entry.path().string().starts_with(context().string()))
        continue;
      std::string bytes = base::read_file(entry.path(), 1u << 30).value();
      const base::UniqueFd fd = base::open_file(entry.path(), O_RDONLY).value();
      if (auto source = image::decompressed(image::read_from(fd.get()))) {
        std::string buffer(65'536, '\0');
        for (auto count = (*source)(buffer); count && *count > 0; count = (*source)(buffer))
          bytes.append(buffer, 0, *count);
      }
      if (bytes.find(text) != std::string::npos) return true;
    }
    return false;
  }

  World world;
  std::string vertices;  ///< `[2/3] RUN x cached`, one a line.
  std::string warnings;
  uint32_t first_vertex = 0;
  std::string output;  ///< `STEP: text`
  std::vector<builder::ImageWanted> fetched;
  json config;
  size_t layers = 0;
  std::string digest;

 private:
  void note(const builder::BuildEvent& event) {
    std::visit(base::overloaded{[&](const builder::VertexStarted& started) {
                                  if (first_vertex == 0) first_vertex = started.id;
                                  names_[started.id] = started.name;
                                },
                                [&](const builder::VertexEnded& ended) {
                                  if (names_[ended.id].starts_with('['))
                                    vertices +=
                                        names_[ended.id] + (ended.cached ? " cached\n" : "\n");
                                },
                                [&](const builder::VertexOutput& said) {
                                  output += names_[said.id] + ": " + said.bytes;
                                },
                                [&](const builder::Warned& warned) { warnings += warned.text; }},
               event);
  }

  fs::path root_;
  std::unique_ptr<image::Images> images_;
  std::unique_ptr<builder::Cache> cache_;
  std::map<uint32_t, std::string> names_;
  int64_t now_s_ = 1'700'000'000;
};

using Log = std::vector<std::string>;

constexpr const char* simple =
    "FROM localhost/base:1\n"
    "COPY app /app\n"
    "RUN write made yes\n"
    "ENTRYPOINT [\"/app\"]\n";

}  // namespace

TEST_CASE("a build copies on the host and runs in one machine") {
  Bench bench;
  bench.file("app", "program");

  const auto result = bench.build(
      "FROM localhost/base:1\nRUN write a 1\nCOPY app /app\nRUN write b 2\nCMD [\"/app\"]\n");

  REQUIRE_MESSAGE(result, result.error().to_string());
  CHECK(bench.world.log == Log{"start", "run write a 1", "layer", "run write b 2", "stop"});
  CHECK(bench.layers == 4);
  CHECK(bench.config["rootfs"]["diff_ids"].size() == 4);
  CHECK(bench.config["config"]["Cmd"] == json{"/app"});
  REQUIRE(bench.config["history"].size() == 4);
  CHECK(bench.config["history"][0]["created_by"] == "RUN /bin/sh -c write a 1");
  CHECK_FALSE(bench.config["history"][0].contains("empty_layer"));
  CHECK(bench.config["history"][3]["empty_layer"] == true);
}

TEST_CASE("an image is asked for once, by the step that needs it, which tells what is brought") {
  Bench bench;

  REQUIRE(
      bench.build("FROM localhost/base:1\nCOPY --from=localhost/base:1 /etc/version /v\n"
                  "RUN --mount=from=localhost/base:1,target=/m write a 1\n"));

  REQUIRE(bench.fetched.size() == 1);
  CHECK(bench.fetched[0].reference == "localhost/base:1");
  CHECK_FALSE(bench.fetched[0].always);
  CHECK(bench.output == "[1/3] FROM localhost/base:1: brought localhost/base:1\n");
  REQUIRE(bench.build("FROM scratch\nCOPY --from=localhost/base:1 /etc/version /v\n"));
  CHECK(bench.output ==
        "[2/2] COPY --from=localhost/base:1 /etc/version /v: brought localhost/base:1\n");
}

TEST_CASE("--pull asks for every image but for those that were made here") {
  Bench bench;
  const std::string text = "FROM localhost/base:1\n";

  REQUIRE(bench.build(text, {.pull = true}));
  CHECK(bench.fetched.at(0).always);
  REQUIRE(bench.build(text, {.pull = true, .local_images = {"localhost/base:1"}}));
  CHECK_FALSE(bench.fetched.at(0).always);
}

TEST_CASE("ids of steps go on behind those that were told already") {
  Bench bench;

  bench.file("app", "program");

  const auto result = bench.build("FROM scratch\nCOPY app /\n", {.vertices_told = 7});

  REQUIRE(result);
  CHECK(result->vertices_told > 8);
  CHECK(bench.first_vertex == 8);
}

TEST_CASE("a file without RUN needs no machine") {
  Bench bench;
  bench.file("app", "program");

  REQUIRE(bench.build("FROM localhost/base:1\nWORKDIR /srv\nCOPY app .\n"));

  CHECK(bench.world.log.empty());
  CHECK(bench.layers == 3);
}

TEST_CASE("built again everything comes from the cache, with the same digest") {
  Bench bench;
  bench.file("app", "program");
  REQUIRE(bench.build(simple));
  const std::string first = bench.digest;

  REQUIRE(bench.build(simple));

  CHECK(bench.world.log.empty());
  CHECK(bench.digest == first);
  CHECK(bench.vertices ==
        "[1/3] FROM localhost/base:1\n"
        "[2/3] COPY app /app cached\n"
        "[3/3] RUN write made yes cached\n");
}

TEST_CASE("a file that is not used and a new time rebuild nothing") {
  Bench bench;
  bench.file("app", "program");
  REQUIRE(bench.build(simple));
  bench.file("unused", "new");
  fs::last_write_time(bench.context() / "app", fs::file_time_type::clock::now());

  REQUIRE(bench.build(simple));

  CHECK(bench.world.log.empty());
}

TEST_CASE("other content rebuilds from the step that uses it") {
  Bench bench;
  bench.file("app", "program");
  REQUIRE(bench.build(simple));
  bench.file("app", "changed");

  REQUIRE(bench.build(simple));

  CHECK(bench.world.log == Log{"start", "run write made yes", "stop"});
}

TEST_CASE("a base image of other content rebuilds everything on it") {
  Bench bench;
  bench.file("app", "program");
  REQUIRE(bench.build(simple));
  bench.load_base("2");

  REQUIRE(bench.build(simple));

  CHECK(bench.world.log == Log{"start", "run write made yes", "stop"});
}

TEST_CASE("builds that differ in their entrypoint alone are two images") {
  Bench bench;
  bench.file("app", "program");
  REQUIRE(bench.build("FROM localhost/base:1\nCOPY app /\nENTRYPOINT [\"/a\"]\n"));
  const std::string first = bench.digest;

  REQUIRE(bench.build("FROM localhost/base:1\nCOPY app /\nENTRYPOINT [\"/b\"]\n"));

  CHECK(bench.digest != first);
  CHECK(bench.config["config"]["Entrypoint"] == json{"/b"});
}

TEST_CASE("a health check of the parent that changes is not hidden by the cache") {
  Bench bench;
  bench.load_base("1", {{"Healthcheck", {{"Test", {"CMD", "old"}}}}});
  REQUIRE(bench.build("FROM localhost/base:1\nRUN count\n"));
  bench.load_base("1", {{"Healthcheck", {{"Test", {"CMD", "new"}}}}});

  REQUIRE(bench.build("FROM localhost/base:1\nRUN count\n"));

  CHECK(bench.world.counter == 2);
  CHECK(bench.config["config"]["Healthcheck"]["Test"] == json{"CMD", "new"});
}

TEST_CASE("an argument counts where it is declared") {
  Bench bench;
  const std::string text = "FROM localhost/base:1\nRUN count\nARG A\nRUN say $A\n";
  REQUIRE(bench.build(text, {.arguments = {{"A", "1"}, {"B", "1"}}}));

  REQUIRE(bench.build(text, {.arguments = {{"A", "1"}, {"B", "2"}}}));
  CHECK(bench.world.log.empty());

  REQUIRE(bench.build(text, {.arguments = {{"A", "2"}}}));
  CHECK(bench.world.log == Log{"start", "run say $A", "stop"});
}

TEST_CASE("without the cache every step runs again") {
  Bench bench;
  REQUIRE(bench.build("FROM localhost/base:1\nRUN count\n"));

  REQUIRE(bench.build("FROM localhost/base:1\nRUN count\n", {.no_cache = true}));

  CHECK(bench.world.counter == 2);
}

TEST_CASE("a step under other limits is another step") {
  Bench bench;
  const std::string text = "FROM localhost/base:1\nRUN count\n";
  REQUIRE(bench.build(text));

  REQUIRE(bench.build(text, {.run_limits = {"nofile=1:2"}}));
  CHECK(bench.world.counter == 2);

  REQUIRE(bench.build(text, {.run_limits = {"nofile=1:2"}}));
  CHECK(bench.world.counter == 2);
}

TEST_CASE("a stage can be made anew alone") {
  Bench bench;
  const std::string text =
      "FROM localhost/base:1 AS Kept\nRUN write kept 1\n"
      "FROM localhost/base:1\nRUN count\n"
      "FROM scratch\nCOPY --from=kept /kept /\nCOPY --from=1 /count /\n";
  REQUIRE(bench.build(text));

  REQUIRE(bench.build(text, {.no_cache_stages = {"1"}}));
  CHECK(bench.world.log == Log{"start", "run count", "stop"});

  REQUIRE(bench.build(text, {.no_cache_stages = {"KEPT"}}));
  CHECK(bench.world.log == Log{"start", "run write kept 1", "stop"});

  const auto unknown = bench.build(text, {.no_cache_stages = {"kepd"}});
  REQUIRE(!unknown);
  CHECK(unknown.error().to_string().find("did you mean 'kept'?") != std::string::npos);
}

TEST_CASE("stages give files to later ones, and only those needed are made") {
  Bench bench;

  const auto result = bench.build(
      "FROM localhost/base:1 AS make\nRUN write out result\n"
      "FROM localhost/base:1 AS unused\nRUN write never 1\n"
      "FROM scratch\nCOPY --from=make /out /bin/\n");

  REQUIRE_MESSAGE(result, result.error().to_string());
  CHECK(bench.world.log == Log{"start", "run write out result", "stop"});
  CHECK(bench.layers == 1);
  CHECK(bench.config["config"]["Env"][0].get<std::string>().starts_with("PATH="));
}

TEST_CASE("a cache begins with what a stage, an image or the context has, and goes on from there") {
  Bench bench;
  bench.file("seeds/one", "1");
  const std::string dockerfile =
      "FROM localhost/base:1 AS make\nRUN write out result\n"
      "FROM localhost/base:1\n"
      "RUN --mount=type=cache,target=/a,from=make --mount=type=cache,target=/b,from="
      "localhost/base:1,source=/etc --mount=type=cache,target=/c count\n";

  const auto result = bench.build(dockerfile);
  REQUIRE_MESSAGE(result, result.error().to_string());
  const auto share = [&](size_t at) { return fs::path(bench.world.shares.at(at).host_path); };
  REQUIRE(bench.world.shares.size() == 3);
  const reconciler::BuildStep& step = bench.world.steps.at(1);
  CHECK(step.mounts.at(1).target == "/b");
  CHECK(step.mounts.at(1).source == bench.world.shares[1].target);
  CHECK(base::read_file(share(0) / "out", 99).value() == "result");
  CHECK(base::read_file(share(0) / "etc/version", 99).value() == "1");
  CHECK(base::read_file(share(1) / "version", 99).value() == "1");
  CHECK(fs::is_empty(share(2)));

  // What steps left there stays; other content below is another cache, and another step.
  const auto shares = bench.world.shares;
  std::ofstream(share(1) / "left") << "x";
  REQUIRE(bench.build(dockerfile));
  CHECK(bench.world.log.empty());
  bench.load_base("2");
  REQUIRE(bench.build(dockerfile));
  CHECK(bench.world.shares[1].host_path != shares[1].host_path);
  CHECK(bench.world.shares[2].host_path == shares[2].host_path);
  CHECK(base::read_file(share(1) / "version", 99).value() == "2");
  CHECK_FALSE(fs::exists(share(1) / "left"));
}

TEST_CASE("a step that fails shows its line, its code and its last output") {
  Bench bench;

  const auto result = bench.build("FROM localhost/base:1\nRUN fail 7\n");

  REQUIRE_FALSE(result);
  const std::string text = result.error().to_string();
  CHECK(text.find("Dockerfile:2:1: error: the command ended with exit code 7") !=
        std::string::npos);
  CHECK(text.find("RUN fail 7") != std::string::npos);
  CHECK(text.find("its last output:\nit went wrong\n") != std::string::npos);
  CHECK(bench.world.log == Log{"start", "run fail 7", "stop"});
}

TEST_CASE("a secret is in the step alone") {
  Bench bench;

  const auto result = bench.build(
      "FROM localhost/base:1\n"
      "RUN --mount=type=secret,id=token --mount=type=secret,id=token,env=TOKEN count\n",
      {.secrets = {{.id = "token", .bytes = "CANARY123"}}});

  REQUIRE_MESSAGE(result, result.error().to_string());
  REQUIRE(bench.world.steps.size() == 1);
  CHECK(bench.world.steps[0].mounts.at(0).target == "/run/secrets/token");
  CHECK(bench.world.steps[0].mounts.at(0).secret == "CANARY123");
  CHECK(bench.world.steps[0].environment.back() == "TOKEN=CANARY123");
  CHECK_FALSE(bench.has_trace_of("CANARY123"));
}

TEST_CASE("an argument that no step uses leaves no trace") {
  Bench bench;

  REQUIRE(bench.build("FROM localhost/base:1\nARG T\nRUN count\n",
                      {.arguments = {{"T", "CANARY123"}}}));

  CHECK_FALSE(bench.has_trace_of("CANARY123"));
}

TEST_CASE("a secret's owner is the step's to say, else whoever gives it, else root alone") {
  Bench bench;

  REQUIRE(bench.build(
      "FROM localhost/base:1\n"
      "RUN --mount=type=secret,id=a --mount=type=secret,id=b --mount=type=secret,id=b,mode=0404,"
      "uid=9,target=/k count\n",
      {.secrets = {{.id = "a", .bytes = "1"},
                   {.id = "b", .bytes = "2", .mode = 0440, .user = 5, .group = 6}}}));

  const auto owner = [&](size_t at) {
    const reconciler::StepMount& mount = bench.world.steps[0].mounts.at(at);
    return fmt::format("{:o} {}:{}", mount.mode, mount.user, mount.group);
  };
  CHECK(owner(0) == "400 0:0");
  CHECK(owner(1) == "440 5:6");
  CHECK(owner(2) == "404 9:6");
}

TEST_CASE("a secret that is missing says how to pass it") {
  Bench bench;

  const auto result =
      bench.build("FROM localhost/base:1\nRUN --mount=type=secret,id=x,required=true count\n");

  REQUIRE_FALSE(result);
  CHECK(result.error().to_string().find("--secret id=x,src=FILE") != std::string::npos);
}

TEST_CASE("nothing outside of the context is copied") {
  Bench bench;
  fs::create_symlink("/etc/passwd", bench.context() / "link");
  fs::create_directory_symlink("/etc", bench.context() / "folder");

  CHECK_FALSE(bench.build("FROM localhost/base:1\nCOPY ../../etc/passwd /x\n"));
  CHECK_FALSE(bench.build("FROM localhost/base:1\nCOPY folder/passwd /x\n"));
}

TEST_CASE("a mount's source that is a link leads nowhere but into its own tree") {
  Bench bench;
  bench.file("own/file", "1");
  fs::create_directories(bench.context().parent_path() / "outside");
  std::ofstream(bench.context().parent_path() / "outside/secret") << "CANARY456";
  fs::create_symlink(bench.context().parent_path() / "outside", bench.context() / "out");
  fs::create_symlink("../outside", bench.context() / "up");
  fs::create_symlink("/", bench.context() / "top");

  for (const char* source : {"out", "out/secret", "up", "up/secret", "../outside"}) {
    const auto result =
        bench.build(fmt::format("FROM localhost/base:1\n"
                                "RUN --mount=type=bind,source={},target=/x count\n",
                                source));
    CHECK_MESSAGE(!result, source);
    CHECK(bench.world.log.empty());
  }
  // The top of its tree is all that `/` can mean.
  bench.world.trees.clear();
  REQUIRE(
      bench.build("FROM localhost/base:1\n"
                  "RUN --mount=type=bind,source=top,target=/x count\n"));
  REQUIRE(bench.world.trees.size() == 1);
  CHECK(bench.world.trees[0].find("content/own/file") != std::string::npos);
  CHECK(bench.world.trees[0].find("CANARY456") == std::string::npos);
}

TEST_CASE("an ignore file that leads out of the context is not read") {
  Bench bench;
  bench.file("app", "program");
  const fs::path outside = bench.context().parent_path() / "outside";
  std::ofstream(outside) << "app\n";
  fs::create_symlink(outside, bench.context() / ".dockerignore");

  CHECK(bench.build("FROM localhost/base:1\nCOPY app /src\n"));
}

TEST_CASE("what .dockerignore names is not there, also through a link") {
  Bench bench;
  bench.file(".env", "CANARY123");
  bench.file("app", "program");
  bench.file(".dockerignore", ".env\n");

  REQUIRE(bench.build("FROM localhost/base:1\nCOPY . /src\n"));
  CHECK_FALSE(bench.has_trace_of("CANARY123"));

  fs::remove(bench.context() / ".dockerignore");
  bench.file("rules", "app\n");
  fs::create_symlink("rules", bench.context() / ".dockerignore");
  CHECK_FALSE(bench.build("FROM localhost/base:1\nCOPY app /src\n"));
}

TEST_CASE("with an epoch the image does not depend on when it was built") {
  Bench bench;
  bench.file("app", "program");
  builder::BuildRequest request;
  request.no_cache = true;
  request.source_date_epoch = 1'000'000'000;
  REQUIRE(bench.build(simple, request));
  const std::string first = bench.digest;

  REQUIRE(bench.build(simple, request));

  CHECK(bench.digest == first);
  CHECK(bench.config["created"] == "2001-09-09T01:46:40Z");
}

TEST_CASE("an argument that nothing asks for is told") {
  Bench bench;

  REQUIRE(bench.build("ARG A\nFROM localhost/base:1\nARG B\nRUN count\n",
                      {.arguments = {{"A", "1"}, {"B", "1"}, {"C", "1"}, {"http_proxy", "x"}}}));

  CHECK(bench.warnings == "--build-arg C is used by no ARG of what was built\n");
}

TEST_CASE("a foreign front end is ignored") {
  Bench bench;
  bench.file("app", "program");

  REQUIRE(bench.build("# syntax=evil/x\nFROM localhost/base:1\nCOPY app /\n"));
}
