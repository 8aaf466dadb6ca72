#include "planner/diff.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include <fmt/format.h>

#include "spec/fields.h"

namespace planner {

namespace {

// Equality by the field lists. A plan compares a thousand services of which one differs, so the
// common answer, "equal", must cost no allocation; texts are made only for those that differ.

template <class T>
bool same(const T& a, const T& b);

template <class T>
bool same(const std::optional<T>& a, const std::optional<T>& b) {
  return a.has_value() == b.has_value() && (!a || same(*a, *b));
}

template <class T>
bool same(const std::vector<T>& a, const std::vector<T>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const T& x, const T& y) { return same(x, y); });
}

template <class T>
bool same(const std::map<std::string, T>& a, const std::map<std::string, T>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.first == y.first && same(x.second, y.second);
  });
}

template <class T>
bool same(const T& a, const T& b) {
  if constexpr (spec::HasFields<T>) {
    bool equal_so_far = true;
    spec::for_each_field<T>([&](const auto& field) {
      equal_so_far = equal_so_far && same(a.*(field.member), b.*(field.member));
    });
    return equal_so_far;
  } else if constexpr (std::is_floating_point_v<T>) {
    return !(a < b) && !(b < a);
  } else {
    return a == b;
  }
}

/// Fields that only the host acts on: no process in the guest ever sees them.
constexpr std::array in_place{"labels",     "annotations", "restart",
                              "depends_on", "stop_signal", "stop_grace_period_ns",
                              "ports",      "scale",       "expose"};
/// Fields given to the agent when the process starts; the disk stays.
constexpr std::array restarts{"healthcheck"};

}  // namespace

ChangeClass change_class(std::string_view path) {
  const std::string_view field = path.substr(0, path.find_first_of(".["));
  if (std::find(in_place.begin(), in_place.end(), field) != in_place.end())
    return ChangeClass::InPlace;
  if (std::find(restarts.begin(), restarts.end(), field) != restarts.end())
    return ChangeClass::Restart;
  return ChangeClass::Replace;
}

Difference compare(const ContainerRecord& existing, const spec::Service& wanted,
                   const std::string& wanted_digest) {
  Difference difference;
  if (!same(existing.applied, wanted)) {
    difference.changes = spec::changes(existing.applied, wanted);
    std::erase_if(difference.changes, [](const auto& change) { return change.path == "scale"; });
  }
  if (existing.image_digest != wanted_digest)
    difference.changes.push_back(
        {"image digest", '"' + existing.image_digest + '"', '"' + wanted_digest + '"'});
  for (const spec::FieldChange& change : difference.changes)
    difference.change_class = std::max(difference.change_class, change_class(change.path));
  return difference;
}

bool equal(const spec::Network& a, const spec::Network& b) { return same(a, b); }
bool equal(const spec::Volume& a, const spec::Volume& b) { return same(a, b); }

std::string list_fields(const std::vector<spec::FieldChange>& changes) {
  constexpr size_t named_max = 3;
  std::string text;
  for (size_t i = 0; i < std::min(changes.size(), named_max); ++i) {
    if (i > 0) text += i + 1 == changes.size() ? " and " : ", ";
    text += changes[i].path;
  }
  if (changes.size() > named_max) text += fmt::format(" and {} more", changes.size() - named_max);
  return text;
}

}  // namespace planner
