#pragma once
/// What a difference between two services costs: nothing the guest sees, a restart, or a
/// replacement. Internal to planner/.

#include <string>
#include <string_view>
#include <vector>

#include "planner/snapshot.h"
#include "spec/json.h"

namespace planner {

/// Ordered: the class of several changes is the greatest of theirs.
enum class ChangeClass { None, InPlace, Restart, Replace };

struct Difference {
  ChangeClass change_class = ChangeClass::None;
  std::vector<spec::FieldChange> changes;
};

/// The class of one field path of spec::changes.
ChangeClass change_class(std::string_view path);

/// `scale` does not count: it is the number of records, not a property of one.
Difference compare(const ContainerRecord& existing, const spec::Service& wanted,
                   const std::string& wanted_digest);

/// Cheap: decides without building texts.
bool equal(const spec::Network& a, const spec::Network& b);
bool equal(const spec::Volume& a, const spec::Volume& b);

/// `image, environment.MODE and 3 more`.
std::string list_fields(const std::vector<spec::FieldChange>& changes);

}  // namespace planner
