#include "cli/stack_builds.h"

#include <algorithm>
#include <functional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "cli/build_client.h"
#include "cli/build_options.h"
#include "cli/console.h"

namespace cli {
namespace {

using base::ErrorCode;
using base::Result;

Result<bool> has_image(const Context& context, const std::string& reference) {
  const auto found = ask(context, "/v1/images/inspect?reference=" + percent_encode(reference));
  if (found) return true;
  if (found.error().code() == ErrorCode::NotFound && base::path_exists(context.paths.api_socket()))
    return false;
  return tl::unexpected<base::Error>(found.error());
}

/// Services whose images the build of `service` begins with.
std::vector<std::string> services_below(const spec::Build& build) {
  constexpr std::string_view prefix = "service:";
  std::vector<std::string> below;
  for (const auto& [name, place] : build.additional_contexts)
    if (place.starts_with(prefix)) below.push_back(place.substr(prefix.size()));
  return below;
}

/// Of the words of `up`, those a build's view knows.
BuildProgress progress_of(const Parsed& parsed) {
  const std::string text = parsed.value("progress").value_or("auto");
  if (text == "none") return BuildProgress::Quiet;
  return text == "plain" ? BuildProgress::Plain : BuildProgress::Auto;
}

}  // namespace

WhichBuilds which_builds(const Parsed& parsed) {
  if (parsed.has("build")) return WhichBuilds::All;
  return parsed.has("no-build") ? WhichBuilds::None : WhichBuilds::Missing;
}

Result<std::vector<std::string>> services_to_build(const Context& context, const spec::Stack& stack,
                                                   const std::set<std::string>& services,
                                                   WhichBuilds which,
                                                   const std::set<std::string>& always) {
  std::vector<std::string> order;
  std::set<std::string> seen;
  if (which == WhichBuilds::None) return order;
  const std::function<Result<>(const std::string&)> visit =
      [&](const std::string& name) -> Result<> {
    const auto build = stack.builds.find(name);
    if (build == stack.builds.end() || !seen.insert(name).second) return {};
    for (const std::string& below : services_below(build->second)) TRY(visit(below));
    if (which == WhichBuilds::Missing && !always.contains(name) &&
        TRY(has_image(context, stack.services.at(name).image)))
      return {};
    order.push_back(name);
    return {};
  };
  for (const auto& [name, build] : stack.builds)
    if (services.empty() || services.contains(name)) TRY(visit(name));
  return order;
}

Result<> build_services(const Context& context, const Parsed& parsed, const StackFiles& files,
                        const std::vector<std::string>& services) {
  for (const std::string& name : services) {
    const std::string& image = files.stack->services.at(name).image;
    tell(fmt::format("Building {} for service {}\n", printable(image), printable(name)));
    BuildCall call{.parsed = parsed, .line = {}, .files = {}};
    call.progress = progress_of(parsed);
    call.line = base::dump_json(TRY(stack_build_request(context, files, name)));
    TRY_DURING(run_build(context, call), "build service '{}'", name);
  }
  return {};
}

}  // namespace cli
