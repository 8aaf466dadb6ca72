/// Small stack files with mistakes in them, and what is told about each, letter by letter.
///
/// The cases stand in diagnostics/*.txt: a title behind `===`, files behind `---`, perhaps
/// `--- options`, and at the end what is told. UPDATE_GOLDEN=1 writes the last part anew.

#include <algorithm>
#include <filesystem>
#include <set>

#include <fmt/format.h>

#include "base/text.h"
#include "spec/attributes.h"
#include "tests/golden/golden.h"
#include "tests/golden/stacks.h"

namespace fs = std::filesystem;

namespace {

constexpr const char* folder = "/p/shop/";
constexpr const char* told_part = "told";
constexpr const char* options_part = "options";

struct Part {
  std::string name;
  std::string text;
};

struct Case {
  std::string title;
  std::vector<Part> parts;
};

std::vector<Case> parse(const std::string& text) {
  std::vector<Case> cases;
  for (const std::string& line : base::split(text.substr(0, text.size() - 1), '\n')) {
    if (line.starts_with("=== ")) {
      cases.push_back({line.substr(4), {}});
    } else if (line.starts_with("--- ") && line != "--- ") {
      REQUIRE_FALSE(cases.empty());
      cases.back().parts.push_back({line.substr(4), {}});
    } else {
      REQUIRE_FALSE(cases.empty());
      REQUIRE_FALSE(cases.back().parts.empty());
      cases.back().parts.back().text += line + "\n";
    }
  }
  return cases;
}

std::string written(const std::vector<Case>& cases) {
  std::string text;
  for (const Case& one : cases) {
    text += "=== " + one.title + "\n";
    for (const Part& part : one.parts) text += "--- " + part.name + "\n" + part.text;
  }
  return text;
}

void take_options(const std::string& text, spec::LoadOptions& options) {
  for (const std::string& line : base::split(text, '\n')) {
    const size_t space = line.find(' ');
    const std::string word = line.substr(0, space);
    const std::string value = space == std::string::npos ? "" : line.substr(space + 1);
    const size_t equals = value.find('=');
    if (word == "strict") options.strict = true;
    if (word == "project") options.project_name = value;
    if (word == "folder") options.project_directory = value;
    if (word == "env-file") options.env_files.push_back(folder + value);
    if (word == "file") options.files.push_back(folder + value);
    if (word == "variable") options.environment[value.substr(0, equals)] = value.substr(equals + 1);
  }
}

/// What is told of the files, and whether there is a stack all the same.
std::string run(const Case& one) {
  golden::Files files;
  spec::LoadOptions options;
  for (const Part& part : one.parts) {
    if (part.name == options_part) take_options(part.text, options);
    if (part.name == options_part || part.name == told_part) continue;
    files[folder + part.name] = part.text;
    const bool is_stack = part.name.ends_with(".yaml") || part.name.ends_with(".toml");
    if (is_stack) options.files.push_back(folder + part.name);
  }
  const spec::Loaded loaded = golden::load(files, options);
  return golden::told(loaded, files) + (loaded.stack ? "read\n" : "refused\n");
}

std::vector<std::string> case_files() {
  std::vector<std::string> paths;
  for (const auto& entry : fs::directory_iterator(CONTAINER_SOURCE_DIR "/tests/golden/diagnostics"))
    paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

/// A value at `pattern` of the table, written as one line of YAML: `{services: {a: {build: 1}}}`.
std::string example_of(std::string_view pattern) {
  std::string text;
  std::string ends;
  for (std::string step : base::split(pattern, '.')) {
    const bool is_item = step.ends_with("[]");
    if (is_item) step.resize(step.size() - 2);
    text += fmt::format("{{{}: {}", step == "*" ? "a" : step, is_item ? "[" : "");
    ends.insert(0, is_item ? "]}" : "}");
  }
  return text + "1" + ends;
}

}  // namespace

TEST_CASE("every mistake is told as it is written down") {
  size_t count = 0;
  std::set<std::string> titles;
  for (const std::string& path : case_files()) {
    std::vector<Case> cases = parse(golden::read(path));
    for (Case& one : cases) {
      REQUIRE_MESSAGE(one.parts.back().name == told_part, one.title);
      CHECK_MESSAGE(titles.insert(one.title).second, one.title, " is a title twice");
      const std::string told = run(one);
      if (!golden::is_update()) CHECK_MESSAGE(told == one.parts.back().text, path, ": ", one.title);
      one.parts.back().text = told;
      ++count;
    }
    if (golden::is_update()) REQUIRE(base::write_file_atomically(path, written(cases), 0644));
  }
  CHECK(count > 80);
}

TEST_CASE("what this version does not do is told by the table's own words, for every row") {
  for (const spec::Attribute& row : spec::attributes()) {
    if (row.runtime == spec::Runtime::Supported) continue;
    const golden::Files files = {{"/p/shop/compose.yaml", example_of(row.pattern)}};
    spec::LoadOptions options;
    options.files = {"/p/shop/compose.yaml"};
    const std::string told = golden::told(golden::load(files, options), files);
    const bool noted = row.runtime == spec::Runtime::Note;
    const bool obsolete = row.runtime == spec::Runtime::Obsolete;
    const std::string says = noted ? "note: " : obsolete ? "warning: " : "error: ";
    CHECK_MESSAGE(told.find(says) != std::string::npos, row.pattern, "\n", told);
    CHECK_MESSAGE(told.find(row.advice) != std::string::npos, row.pattern, "\n", told);
  }
}

TEST_CASE("twenty mistakes in one file are twenty diagnostics, and no stack") {
  const std::string text = golden::read(CONTAINER_SOURCE_DIR "/tests/golden/twenty-mistakes.yaml");
  const golden::Files files = {{"/p/shop/compose.yaml", text}};
  spec::LoadOptions options;
  options.files = {"/p/shop/compose.yaml"};
  const spec::Loaded loaded = golden::load(files, options);
  CHECK(loaded.diagnostics.size() == 20);
  CHECK_FALSE(loaded.stack);
  golden::check("tests/golden/twenty-mistakes.txt", golden::told(loaded, files));
}
