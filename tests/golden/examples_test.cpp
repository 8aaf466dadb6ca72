/// Every example loads without a word, plans as its plan.txt says, and plans nothing a second time.

#include <algorithm>
#include <filesystem>

#include "base/json.h"
#include "base/text.h"
#include "tests/golden/golden.h"
#include "tests/golden/stacks.h"

namespace fs = std::filesystem;

namespace {

std::vector<std::string> examples() {
  std::vector<std::string> names;
  for (const fs::directory_entry& entry :
       fs::directory_iterator(CONTAINER_SOURCE_DIR "/examples/stacks"))
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

spec::Loaded load_example(const std::string& folder) {
  spec::LoadOptions options;
  options.files = spec::discover(folder, base::path_exists);
  options.home_directory = "/home/me";
  options.strict = true;
  options.read_file = [](const std::string& path) { return base::read_file(path, 4u << 20); };
  return spec::load(options);
}

}  // namespace

TEST_CASE("every example loads and plans as is written beside it") {
  const std::vector<std::string> names = examples();
  REQUIRE(names.size() >= 5);
  for (const std::string& name : names) {
    const std::string folder = std::string(CONTAINER_SOURCE_DIR) + "/examples/stacks/" + name;
    const spec::Loaded loaded = load_example(folder);
    CHECK_MESSAGE(golden::told(loaded, {}).empty(), golden::told(loaded, {}));
    REQUIRE(loaded.stack);
    CHECK(loaded.stack->name == name);
    for (const auto& [service, content] : loaded.stack->services)
      CHECK_MESSAGE(content.image == "localhost/hello:1", name, ".", service);
    const planner::Snapshot before = golden::nothing(*loaded.stack);
    const planner::Plan first = golden::plan(*loaded.stack, before);
    golden::check("examples/stacks/" + name + "/plan.txt", planner::render_text(first));
    const planner::Snapshot after = planner::test::after(first, before);
    CHECK(golden::plan(*loaded.stack, after, {.no_start = true}).steps.empty());
  }
}

TEST_CASE("what the examples mount is there") {
  for (const std::string& name : examples()) {
    const spec::Loaded loaded = load_example(CONTAINER_SOURCE_DIR "/examples/stacks/" + name);
    REQUIRE(loaded.stack);
    for (const auto& [service, content] : loaded.stack->services)
      for (const spec::Mount& mount : content.volumes)
        if (mount.type == spec::MountType::Bind)
          CHECK_MESSAGE(base::path_exists(mount.source), mount.source);
  }
}
