/// The text of a plan: one line per resource with what becomes of it and why, then its fields.

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <utility>

#include <fmt/format.h>

#include "base/overloaded.h"
#include "base/text.h"
#include "planner/diff.h"
#include "planner/plan.h"

namespace planner {

namespace {

enum class Verb {
  CreateNetwork,
  RemoveNetwork,
  CreateVolume,
  RemoveVolume,
  Create,
  Update,
  Start,
  Stop,
  Kill,
  Remove,
  Await
};

Verb verb_of(const Operation& operation) { return static_cast<Verb>(operation.index()); }
static_assert(std::variant_size_v<Operation> == static_cast<size_t>(Verb::Await) + 1);

std::string await_words(const AwaitContainer& await) {
  switch (await.condition) {
    case spec::DependencyCondition::Started:
      return await.healthy_if_checked ? "wait until it is running and healthy"
                                      : "wait until it has started";
    case spec::DependencyCondition::Healthy: return "wait until it is healthy";
    case spec::DependencyCondition::CompletedSuccessfully: return "wait until it has completed";
  }
  return "wait";
}

/// Symbol and words of one step.
std::pair<std::string, std::string> words_of(const Step& step) {
  using Words = std::pair<std::string, std::string>;
  const bool changed = !step.changes.empty() && !step.replaces;
  return std::visit(
      base::overloaded{
          [&](const CreateNetwork&) {
            return changed ? Words{"~", "update network"} : Words{"+", "create network"};
          },
          [](const RemoveNetwork&) {
            return Words{"-", "remove network"};
          },
          [](const CreateVolume&) {
            return Words{"+", "create volume"};
          },
          [](const RemoveVolume&) {
            return Words{"-", "remove volume"};
          },
          [](const CreateContainer&) {
            return Words{"+", "create container"};
          },
          [](const UpdateContainer&) {
            return Words{"~", "update container"};
          },
          [](const StartContainer&) {
            return Words{"▸", "start"};
          },
          [](const StopContainer&) {
            return Words{"▸", "stop"};
          },
          [](const KillContainer& op) {
            return Words{"▸", "send " + op.signal};
          },
          [](const RemoveContainer&) {
            return Words{"-", "remove container"};
          },
          [](const AwaitContainer& op) {
            return Words{"▸", await_words(op)};
          },
      },
      step.operation);
}

/// All steps of one address: the unit people think in.
struct Resource {
  std::string address;
  std::vector<const Step*> steps;

  bool has(std::initializer_list<Verb> verbs) const {
    return std::any_of(steps.begin(), steps.end(), [&](const Step* step) {
      return std::find(verbs.begin(), verbs.end(), verb_of(step->operation)) != verbs.end();
    });
  }
  bool creates() const { return has({Verb::CreateNetwork, Verb::CreateVolume, Verb::Create}); }
  bool removes() const { return has({Verb::RemoveNetwork, Verb::RemoveVolume, Verb::Remove}); }
  bool updates() const {
    return std::any_of(steps.begin(), steps.end(), [](const Step* step) {
      return verb_of(step->operation) == Verb::Update ||
             (verb_of(step->operation) == Verb::CreateNetwork && !step->changes.empty() &&
              !step->replaces);
    });
  }
};

enum class Kind { Create, Replace, Update, Remove, Start, Stop, Restart, Signal, Wait };

Kind kind_of(const Resource& resource) {
  if (resource.creates() && resource.removes()) return Kind::Replace;
  if (resource.updates()) return Kind::Update;
  if (resource.creates()) return Kind::Create;
  if (resource.removes()) return Kind::Remove;
  const bool starts = resource.has({Verb::Start});
  const bool stops = resource.has({Verb::Stop});
  if (starts && stops) return Kind::Restart;
  if (starts) return Kind::Start;
  if (stops) return Kind::Stop;
  return resource.has({Verb::Kill}) ? Kind::Signal : Kind::Wait;
}

constexpr std::array symbols{"+", "-/+", "~", "-", "▸", "▸", "▸", "▸", "▸"};
constexpr std::array footers{"to create", "to replace", "to update",       "to remove",  "to start",
                             "to stop",   "to restart", "to be signalled", "to wait for"};

std::string action_words(const Resource& resource, Kind kind) {
  const bool starts = resource.has({Verb::Start});
  switch (kind) {
    case Kind::Create: return starts ? "create and start" : "create";
    case Kind::Replace:
      return starts || !resource.has({Verb::Create}) ? "replace" : "replace, without starting";
    case Kind::Update:
      if (resource.has({Verb::Stop})) return "update in place, with a restart";
      return starts ? "update in place and start" : "update in place";
    case Kind::Remove: return resource.has({Verb::Stop}) ? "stop and remove" : "remove";
    case Kind::Restart: return "stop and start again";
    case Kind::Start: return "start";
    case Kind::Stop: return "stop";
    case Kind::Signal:
    case Kind::Wait: return words_of(*resource.steps.front()).second;
  }
  return "";
}

std::vector<Resource> group(const Plan& plan) {
  std::vector<Resource> resources;
  std::map<std::string, size_t> index;
  for (const Step& step : plan.steps) {
    const auto [place, is_new] = index.emplace(step.address, resources.size());
    if (is_new) resources.push_back({step.address, {}});
    resources[place->second].steps.push_back(&step);
  }
  std::sort(resources.begin(), resources.end(),
            [](const Resource& a, const Resource& b) { return a.address < b.address; });
  return resources;
}

bool is_secret(const std::string& path) {
  const std::string prefix = "environment.";
  if (!path.starts_with(prefix)) return false;
  std::string name = path.substr(prefix.size());
  for (char& letter : name)
    letter = static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
  constexpr std::array words{"PASSWORD", "PASSWD", "SECRET", "TOKEN", "KEY", "CREDENTIAL"};
  return std::any_of(words.begin(), words.end(),
                     [&](const char* word) { return name.find(word) != std::string::npos; });
}

std::string value_text(const spec::FieldChange& change, const std::string& value) {
  if (value == "null") return "(unset)";
  return is_secret(change.path) ? "(sensitive)" : base::escape_controls(value);
}

std::string change_lines(const Resource& resource, Kind kind) {
  std::string text;
  for (const Step* step : resource.steps)
    for (const spec::FieldChange& change : step->changes) {
      const bool network = verb_of(step->operation) == Verb::CreateNetwork;
      const bool forces =
          kind == Kind::Replace && (network ? !change.path.starts_with("labels")
                                            : change_class(change.path) == ChangeClass::Replace);
      const bool restarts =
          kind == Kind::Update && !network && change_class(change.path) == ChangeClass::Restart;
      text += fmt::format("        {} {} -> {}{}{}\n", base::escape_controls(change.path),
                          value_text(change, change.before), value_text(change, change.after),
                          forces ? "  # forces replacement" : "",
                          restarts ? "  # takes effect by a restart" : "");
    }
  return text;
}

std::string note_lines(const Plan& plan) {
  std::string text;
  const auto section = [&](NoteKind kind, const char* title, const char* symbol) {
    bool first = true;
    for (const Note& note : plan.notes) {
      if (note.kind != kind) continue;
      if (first) text += title;
      first = false;
      text += fmt::format("  {} {}: {}\n", symbol, base::escape_controls(note.address),
                          base::escape_controls(note.text));
    }
    if (!first) text += "\n";
  };
  section(NoteKind::Drift, "Changed outside of the stack file:\n", "!");
  section(NoteKind::Orphan, "Orphans, left over from services that are not in the stack:\n", "?");
  section(NoteKind::Warning, "Please note:\n", "!");
  return text;
}

}  // namespace

std::string render_text(const Plan& plan) {
  std::string text = note_lines(plan);
  const std::vector<Resource> resources = group(plan);
  if (resources.empty()) return text + "No changes. The stack is as declared.\n";
  size_t width = 0;
  for (const Resource& resource : resources)
    width = std::max(width, base::escape_controls(resource.address).size());
  std::array<size_t, footers.size()> counts{};
  for (const Resource& resource : resources) {
    const Kind kind = kind_of(resource);
    ++counts[static_cast<size_t>(kind)];
    const std::string& reason = resource.steps.front()->reason;
    text +=
        fmt::format("  {:>3} {:<{}}  {}{}\n", symbols[static_cast<size_t>(kind)],
                    base::escape_controls(resource.address), width, action_words(resource, kind),
                    reason.empty() ? "" : "  (" + base::escape_controls(reason) + ")");
    text += change_lines(resource, kind);
  }
  std::string footer;
  for (size_t i = 0; i < counts.size(); ++i)
    if (counts[i] > 0)
      footer += fmt::format("{}{} {}", footer.empty() ? "" : ", ", counts[i], footers[i]);
  return text + "\nPlan: " + footer + ".\n";
}

std::string describe(const Step& step) {
  const auto [symbol, words] = words_of(step);
  return fmt::format("{} {}  {}", symbol, base::escape_controls(step.address),
                     base::escape_controls(words));
}

}  // namespace planner
