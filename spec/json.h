#pragma once
/// The canonical JSON form of the Stack model: the wire between CLI and daemon, and the form in
/// which applied services are stored. Made from the field lists in spec/fields.h.

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"
#include "spec/stack.h"

namespace spec {

nlohmann::json to_json(const Stack& stack);
nlohmann::json to_json(const Service& service);
nlohmann::json to_json(const Network& network);
nlohmann::json to_json(const Volume& volume);

/// Unknown keys are ignored, so that an older daemon's state can be read by a newer one and the
/// other way round; a wrong type is InvalidArgument and names the path.
base::Result<Stack> stack_from_json(const nlohmann::json& json);
base::Result<Service> service_from_json(const nlohmann::json& json);
base::Result<Network> network_from_json(const nlohmann::json& json);
base::Result<Volume> volume_from_json(const nlohmann::json& json);

/// One field that differs. Values are short canonical JSON texts, `null` where absent.
struct FieldChange {
  std::string path;  ///< `environment.MODE`, `ports[0].published`, `image`
  std::string before;
  std::string after;
};

/// Field by field, sorted by path; empty if equal.
std::vector<FieldChange> changes(const Service& before, const Service& after);
std::vector<FieldChange> changes(const Network& before, const Network& after);
std::vector<FieldChange> changes(const Volume& before, const Volume& after);

}  // namespace spec
