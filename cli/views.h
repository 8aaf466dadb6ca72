#pragma once
/// Records of the daemon as people and scripts see them: rows of tables, and the JSON shapes that
/// the tool's tutorial uses (`.status`, `.configuration.id`, `.networks[0].address`). Pure.

#include <string>

#include <nlohmann/json_fwd.hpp>

#include "cli/table.h"
#include "planner/snapshot.h"

namespace cli {

/// `running`, `stopped` or `unknown`.
std::string status_text(const planner::ContainerRecord& record);

Row container_header();
Row container_row(const planner::ContainerRecord& record);
nlohmann::json container_json(const planner::ContainerRecord& record);

Row network_header();
Row network_row(const planner::NetworkRecord& record);
nlohmann::json network_json(const planner::NetworkRecord& record);

Row volume_header();
Row volume_row(const planner::VolumeRecord& record);
nlohmann::json volume_json(const planner::VolumeRecord& record);

/// `docker.io/library/alpine:3.20` is shown as `alpine` and `3.20`.
struct ImageName {
  std::string name;
  std::string tag;
};
ImageName image_name(const std::string& reference);

/// Of an entry of GET /v1/images.
Row image_header(bool verbose);
Row image_row(const nlohmann::json& image, bool verbose);
nlohmann::json image_json(const nlohmann::json& image);
/// Of an answer of GET /v1/images/inspect.
nlohmann::json image_details_json(const nlohmann::json& image);

}  // namespace cli
