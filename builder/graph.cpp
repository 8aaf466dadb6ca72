#include "builder/graph.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <utility>

#include "base/lower_case.h"
#include "base/text.h"

namespace builder {
namespace {

using base::ErrorCode;
using base::Result;

constexpr std::string_view image_scheme = "docker-image://";

std::optional<size_t> number_of(const std::string& text) {
  size_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::string from_of_text(const std::string& mount_text) {
  for (const std::string& piece : base::split(mount_text, ','))
    if (piece.starts_with("from=")) return piece.substr(5);
  return {};
}

/// What an instruction takes files from, as written.
std::vector<std::string> sources_of(const Operation& operation) {
  std::vector<std::string> sources;
  if (const auto* copy = std::get_if<CopyInstruction>(&operation); copy && !copy->from.empty())
    sources.push_back(copy->from);
  if (const auto* run = std::get_if<RunInstruction>(&operation))
    for (const RunMount& mount : run->mounts) {
      // One with variables in it is not taken apart yet.
      const std::string from = mount.from.empty() ? from_of_text(mount.text) : mount.from;
      if (!from.empty()) sources.push_back(from);
    }
  return sources;
}

class GraphMaker {
 public:
  GraphMaker(const Dockerfile& file, const SourceText& source, const GraphRequest& request)
      : file_(file), source_(source), request_(request) {}

  Result<BuildGraph> make() {
    const size_t target = TRY(find_target());
    for (const std::string& name : request_.fresh_stages) fresh_.insert(TRY(find_stage(name)));
    for (const image::Platform& platform : request_.platforms)
      graph_.targets.push_back(TRY(node(target, platform)));
    return std::move(graph_);
  }

 private:
  Result<size_t> find_target() const {
    if (file_.stages.empty())
      return base::fail(ErrorCode::InvalidArgument, "{} has no FROM: nothing to build",
                        source_.name);
    if (request_.target.empty()) return file_.stages.size() - 1;
    return find_stage(request_.target);
  }

  Result<size_t> find_stage(const std::string& wanted) const {
    if (const auto found = stage_named(wanted, file_.stages.size())) return *found;
    std::vector<std::string> names;
    for (const Stage& stage : file_.stages)
      if (!stage.from.name.empty()) names.push_back(stage.from.name);
    const auto meant = base::did_you_mean(wanted, names);
    return base::fail(ErrorCode::NotFound, "{} has no stage '{}'; {}", source_.name,
                      base::escape_controls(wanted),
                      meant           ? fmt::format("did you mean '{}'?", *meant)
                      : names.empty() ? fmt::format("its stages are numbered from 0 to {}",
                                                    file_.stages.size() - 1)
                                      : "there are " + base::join(names, ", "));
  }

  /// Among the first `end` stages, the last one of that name; or by number.
  std::optional<size_t> stage_named(const std::string& name, size_t end) const {
    const std::string wanted = base::lower_case(name);
    for (size_t i = end; i-- > 0;)
      if (!file_.stages[i].from.name.empty() &&
          base::lower_case(file_.stages[i].from.name) == wanted)
        return i;
    const auto number = number_of(name);
    return number && *number < end ? number : std::nullopt;
  }

  /// The node of a stage for a platform; made after all it takes from.
  Result<size_t> node(size_t index, const image::Platform& wanted) {
    const Stage& stage = file_.stages[index];
    const Arguments arguments =
        TRY(make_arguments(file_, source_, request_.arguments, wanted, request_.host));
    const FromInstruction from = TRY(expand_from(file_, stage, arguments, source_));
    image::Platform platform = wanted;
    if (!from.platform.empty()) {
      const auto parsed = image::parse_platform(from.platform);
      if (!parsed)
        return tl::unexpected<base::Error>(error_at(source_, stage.location, parsed.error()));
      platform = *parsed;
    }
    const std::string key = fmt::format("{} {}", index, wanted.text());
    if (const auto known = made_.find(key); known != made_.end()) return known->second;
    StageNode made{.stage = index,
                   .target = wanted,
                   .platform = platform,
                   .base = {},
                   .sources = {},
                   .name = stage.from.name.empty() && file_.stages.size() > 1
                               ? fmt::format("stage-{}", index)
                               : stage.from.name,
                   .fresh = fresh_.contains(index)};
    made.base = TRY(origin(from.image, index, wanted, false));
    if (made.base.kind == Origin::Kind::Stage && from.platform.empty())
      made.platform = graph_.nodes[made.base.node].platform;
    for (const Instruction& instruction : stage.instructions)
      for (const std::string& name : sources_of(instruction.operation)) {
        if (name.find('$') != std::string::npos)
          return tl::unexpected<base::Error>(
              error_at(source_, instruction.location,
                       {ErrorCode::InvalidArgument,
                        "'from' cannot hold variables here; name a stage whose FROM holds them"}));
        made.sources[name] = TRY(origin(name, index, wanted, true));
      }
    graph_.nodes.push_back(std::move(made));
    return made_[key] = graph_.nodes.size() - 1;
  }

  Result<Origin> origin(const std::string& name, size_t before, const image::Platform& target,
                        bool numbers) {
    if (const auto named = request_.named_contexts.find(name);
        named != request_.named_contexts.end()) {
      if (named->second.starts_with(image_scheme))
        return Origin{.kind = Origin::Kind::Image,
                      .node = 0,
                      .name = named->second.substr(image_scheme.size())};
      return Origin{.kind = Origin::Kind::Context, .node = 0, .name = name};
    }
    const auto stage = stage_named(name, before);
    if (stage && (numbers || !number_of(name))) {
      const size_t made = TRY(node(*stage, target));
      return Origin{.kind = Origin::Kind::Stage, .node = made, .name = name};
    }
    if (name == "scratch") return Origin{.kind = Origin::Kind::Scratch, .node = 0, .name = name};
    return Origin{.kind = Origin::Kind::Image, .node = 0, .name = name};
  }

  const Dockerfile& file_;
  const SourceText& source_;
  const GraphRequest& request_;
  BuildGraph graph_;
  std::map<std::string, size_t> made_;
  std::set<size_t> fresh_;
};

}  // namespace

Result<BuildGraph> make_graph(const Dockerfile& file, const SourceText& source,
                              const GraphRequest& request) {
  return GraphMaker(file, source, request).make();
}

}  // namespace builder
