#pragma once
/// Stack files from memory, planned against what an earlier plan has made.

#include <map>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "planner/test_stack.h"
#include "spec/load.h"

namespace golden {

using Files = std::map<std::string, std::string>;

inline std::string line_of(const std::string& text, uint32_t number) {
  std::string_view rest = text;
  for (uint32_t i = 1; i < number; ++i) {
    const size_t end = rest.find('\n');
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
  return std::string(rest.substr(0, rest.find('\n')));
}

/// What a person reads of the diagnostics.
inline std::string told(const spec::Loaded& loaded, const Files& files) {
  std::string text;
  for (const spec::Diagnostic& one : loaded.diagnostics)
    text += spec::render(one, [&](const std::string& file, uint32_t line) {
      const auto found = files.find(file);
      return found == files.end() ? std::string() : line_of(found->second, line);
    });
  return text;
}

/// As told by `read_file`; paths in `files` are absolute.
inline spec::Loaded load(const Files& files, spec::LoadOptions options) {
  options.home_directory = "/home/me";
  options.read_file = [&](const std::string& path) -> base::Result<std::string> {
    const auto found = files.find(path);
    if (found != files.end()) return found->second;
    return base::fail(base::ErrorCode::NotFound, "there is no file '{}'", path);
  };
  return spec::load(options);
}

inline spec::Stack stack(const std::string& yaml) {
  const Files files = {{"/p/shop/compose.yaml", yaml}};
  spec::LoadOptions options;
  options.files = {"/p/shop/compose.yaml"};
  spec::Loaded loaded = load(files, options);
  REQUIRE_MESSAGE(loaded.stack, told(loaded, files));
  return std::move(*loaded.stack);
}

/// Nothing exists but the images that the stack names.
inline planner::Snapshot nothing(const spec::Stack& stack) {
  planner::Snapshot snapshot;
  snapshot.serial = 1;
  snapshot.lineage = "test";
  for (const auto& [name, service] : stack.services)
    snapshot.image_digests[service.image] = "sha256:" + service.image;
  return snapshot;
}

inline planner::Plan plan(const spec::Stack& wanted, const planner::Snapshot& actual,
                          const planner::UpOptions& options = {}) {
  const auto made = planner::plan_up(wanted, actual, options);
  REQUIRE_MESSAGE(made, made.error().to_string());
  return *made;
}

/// What there is once `stack` is up.
inline planner::Snapshot running(const spec::Stack& stack) {
  const planner::Snapshot before = nothing(stack);
  return planner::test::after(plan(stack, before), before);
}

}  // namespace golden
