/// Stack files of strangers, in every language they may be written in: the same bytes are read as
/// YAML, as TOML, as a file laid over another, as variables and as a command line. What is read
/// comes back the same from its JSON; what is refused says where, and can be shown.

#include <cstdlib>
#include <map>
#include <string>

#include <nlohmann/json.hpp>

#include "spec/dotenv.h"
#include "spec/interpolate.h"
#include "spec/json.h"
#include "spec/load.h"
#include "spec/shell_words.h"

namespace {

/// A project whose every file has the same content, but for the one that a file is laid over.
constexpr const char* below =
    "services: {web: {image: x, ports: ['80:80'], volumes: [d:/d], environment: {A: 1}}}\n"
    "volumes: {d: {}}\n";

const std::map<std::string, std::string> surroundings = {
    {"SET", "value"}, {"EMPTY", ""}, {"TAG", "1"}, {"PORT", "8080"}};

void check_shown(const spec::Loaded& loaded, const std::string& text) {
  for (const spec::Diagnostic& one : loaded.diagnostics) {
    const auto line = [&](const std::string&, uint32_t) { return text.substr(0, 300); };
    const std::string shown = spec::render(one, line);
    if (one.summary.empty() || shown.find('\x1b') != std::string::npos) std::abort();
  }
}

void check_loaded(const spec::Loaded& loaded, const std::string& text) {
  if (loaded.stack.has_value() == spec::has_errors(loaded.diagnostics)) std::abort();
  check_shown(loaded, text);
  if (!loaded.stack) return;
  const nlohmann::json json = spec::to_json(*loaded.stack);
  const auto back = spec::stack_from_json(json);
  if (!back || spec::to_json(*back) != json) std::abort();
}

void load(const std::string& text, std::vector<std::string> files) {
  spec::LoadOptions options;
  options.files = std::move(files);
  options.home_directory = "/home/me";
  options.environment = surroundings;
  options.read_file = [&](const std::string& path) -> base::Result<std::string> {
    if (path == "/p/below.yaml") return std::string(below);
    return text;
  };
  check_loaded(spec::load(options), text);
}

const std::string* look_up(std::string_view name) {
  const auto found = surroundings.find(std::string(name));
  return found == surroundings.end() ? nullptr : &found->second;
}

void read_pieces(const std::string& text) {
  constexpr size_t bytes_max = 100'000;
  const auto filled = spec::interpolate(text, look_up, bytes_max);
  if (filled && filled->text.size() > bytes_max) std::abort();
  const auto words = spec::split_words(text);
  if (words && words->size() > text.size()) std::abort();
  for (const spec::Dotenv& parsed :
       {spec::parse_dotenv(text, look_up, bytes_max), spec::parse_raw_env(text)})
    for (const spec::DotenvEntry& entry : parsed.entries)
      if (entry.key.empty() || entry.line == 0) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  load(text, {"/p/compose.yaml"});
  load(text, {"/p/stack.toml"});
  load(text, {"/p/below.yaml", "/p/over.yaml"});
  read_pieces(text);
  return 0;
}
