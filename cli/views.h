#pragma once
/// Records of the daemon as people and scripts see them: rows of tables, and the JSON shapes that
/// the tool's tutorial uses (`.status`, `.configuration.id`, `.networks[0].address`). Pure.

#include <string>
#include <vector>

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

/// `1.5 MB`, in units of 1024.
std::string size_text(int64_t bytes);
/// The line that whoever removed something ends with.
std::string reclaimed_text(int64_t bytes);

/// Of an entry of GET /v1/images.
Row image_header();
Row image_row(const nlohmann::json& image);
nlohmann::json image_json(const nlohmann::json& image);
/// The same with `verbose=1`: a row for each platform.
Row variant_header();
std::vector<Row> variant_rows(const nlohmann::json& image);
/// Of an answer of GET /v1/images/inspect.
nlohmann::json image_details_json(const nlohmann::json& image);

/// Of an answer of GET /v1/system/df.
Row disk_use_header();
std::vector<Row> disk_use_rows(const nlohmann::json& use);

}  // namespace cli
