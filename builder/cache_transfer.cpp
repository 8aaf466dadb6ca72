#include "builder/cache_transfer.h"

#include <algorithm>
#include <map>
#include <utility>

#include <fcntl.h>

#include <nlohmann/json.hpp>

#include "base/fd.h"
#include "base/fields.h"
#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/text.h"
#include "image/digest.h"
#include "image/layer.h"
#include "image/manifest.h"
#include "image/reference.h"

namespace builder {
namespace {

using base::ErrorCode;
using base::Result;
using nlohmann::json;

constexpr const char* cache_media_type = "application/vnd.container.build-cache.v1+json";
constexpr size_t copy_bytes = 256u << 10;

std::string blob_path(const std::string& folder, const std::string& digest) {
  return fmt::format("{}/blobs/sha256/{}", folder, image::digest_hex(digest));
}

Result<> copy_out(image::Store& store, const std::string& digest, const std::string& folder) {
  const std::string path = blob_path(folder, digest);
  if (base::path_exists(path)) return {};
  const base::UniqueFd from = TRY(store.open_blob(digest));
  const std::string unfinished = path + ".partial";
  const base::UniqueFd to =
      TRY(base::open_file(unfinished, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0644));
  std::string buffer(copy_bytes, '\0');
  while (const size_t count = TRY(base::read_some(from.get(), buffer)))
    TRY(base::write_all(to.get(), std::string_view(buffer).substr(0, count)));
  if (::rename(unfinished.c_str(), path.c_str()) != 0)
    return base::fail_errno(errno, fmt::format("rename to '{}'", path));
  return {};
}

/// A blob of the folder; its bytes are checked while they come in.
Result<> copy_in(image::Store& store, image::Lease& lease, const image::Descriptor& blob,
                 const std::string& folder) {
  TRY(lease.keep(blob.digest));
  if (store.has(blob.digest)) return {};
  const base::UniqueFd from =
      TRY(base::open_file(blob_path(folder, blob.digest), O_RDONLY | O_NOFOLLOW));
  image::PieceWriter to = TRY(store.begin_put(lease));
  std::string buffer(copy_bytes, '\0');
  uint64_t at = 0;
  while (const size_t count = TRY(base::read_some(from.get(), buffer))) {
    TRY(to.write_at(at, std::string_view(buffer).substr(0, count)));
    at += count;
    if (at > blob.size)
      return base::fail(ErrorCode::InvalidArgument, "{} is larger than announced", blob.digest);
  }
  TRY(store.finish_put(std::move(to), blob.digest));
  return {};
}

}  // namespace

Result<CachePlace> parse_cache_place(std::string_view text, std::string_view folder_key) {
  std::map<std::string, std::string> fields;
  if (text.find('=') == std::string_view::npos) {
    fields = {{"type", "registry"}, {"ref", std::string(text)}};
  } else {
    fields = base::comma_fields(text);
  }
  const std::string type = fields["type"];
  const std::string place = type == "registry" ? "ref" : std::string(folder_key);
  for (const auto& [key, value] : fields)
    if (key != "type" && key != place && !(key == "mode" && (value == "max" || value == "min")))
      return base::fail(ErrorCode::InvalidArgument, "'{}' is not known here; write {}={}",
                        base::escape_controls(key), place, type == "registry" ? "NAME" : "FOLDER");
  if (type != "local" && type != "registry")
    return base::fail(ErrorCode::Unsupported,
                      "a cache of type '{}' is not known; use type=local or type=registry",
                      base::escape_controls(type));
  if (fields[place].empty())
    return base::fail(ErrorCode::InvalidArgument, "'{}=' is missing", place);
  if (type == "registry") {
    const image::Reference reference = TRY(image::parse_reference(fields[place]));
    return CachePlace{.kind = CachePlace::Kind::Registry, .place = reference.full()};
  }
  if (!fields[place].starts_with('/'))
    return base::fail(ErrorCode::InvalidArgument, "{} must be an absolute path", place);
  return CachePlace{.kind = CachePlace::Kind::Local, .place = fields[place]};
}

Result<image::Descriptor> pack_cache(image::Store& store, image::Lease& lease, const Cache& cache,
                                     const std::set<std::string>& keys) {
  const json entries = cache.export_entries(keys);
  if (entries.empty())
    return base::fail(ErrorCode::NotFound, "this build has no steps to keep in a cache");
  const image::Descriptor config =
      TRY(store.put_text(lease, base::dump_json({{"entries", entries}}), cache_media_type));
  std::map<std::string, CacheEntry> parsed = TRY(Cache::parse_entries(entries));
  std::map<std::string, image::Descriptor> layers;
  for (const auto& [key, entry] : parsed)
    if (!entry.layer.diff_id.empty()) layers.emplace(entry.layer.blob.digest, entry.layer.blob);
  json list = json::array();
  for (const auto& [digest, blob] : layers) list.push_back(image::to_json(blob));
  return store.put_text(lease,
                        base::dump_json({{"schemaVersion", 2},
                                         {"mediaType", image::manifest_media_type},
                                         {"config", image::to_json(config)},
                                         {"layers", std::move(list)}}),
                        image::manifest_media_type);
}

Result<size_t> unpack_cache(image::Store& store, image::Lease& lease, Cache& cache,
                            const image::Descriptor& packed, int64_t now_s) {
  TRY(lease.keep(packed.digest));
  const image::Manifest manifest = TRY(image::read_manifest(store, packed));
  if (manifest.config.media_type != cache_media_type)
    return base::fail(ErrorCode::InvalidArgument, "it is no cache of builds");
  const json config =
      TRY(image::read_json(store, manifest.config, base::limits::image_config_bytes_max));
  if (!config.is_object() || !config.contains("entries"))
    return base::fail(ErrorCode::InvalidArgument, "it is no cache of builds");
  std::map<std::string, CacheEntry> entries = TRY(Cache::parse_entries(config.at("entries")));
  size_t taken = 0;
  for (auto& [key, entry] : entries) {
    if (cache.find(key, now_s)) continue;
    // Making the disk checks blob and content against their digests.
    if (!entry.layer.diff_id.empty() &&
        !image::make_layer(store, lease, entry.layer.blob, entry.layer.diff_id))
      continue;
    entry.used_s = now_s;
    cache.put(key, std::move(entry));
    ++taken;
  }
  return taken;
}

Result<> write_cache_folder(image::Store& store, const image::Descriptor& packed,
                            const std::string& folder) {
  TRY(base::make_directories(folder + "/blobs/sha256"));
  const image::Manifest manifest = TRY(image::read_manifest(store, packed));
  for (const image::Descriptor& layer : manifest.layers) TRY(copy_out(store, layer.digest, folder));
  TRY(copy_out(store, manifest.config.digest, folder));
  TRY(copy_out(store, packed.digest, folder));
  TRY(base::write_file_atomically(folder + "/oci-layout",
                                  base::dump_json({{"imageLayoutVersion", "1.0.0"}}), 0644));
  const json index = {{"schemaVersion", 2}, {"manifests", json::array({image::to_json(packed)})}};
  return base::write_file_atomically(folder + "/index.json", base::dump_json(index), 0644);
}

Result<image::Descriptor> read_cache_folder(image::Store& store, image::Lease& lease,
                                            const std::string& folder) {
  const json index = TRY(base::parse_json(
      TRY(base::read_file(folder + "/index.json", base::limits::manifest_bytes_max))));
  if (!image::is_index(index) || index.at("manifests").empty())
    return base::fail(ErrorCode::InvalidArgument, "'{}' holds no cache of builds", folder);
  const image::Descriptor packed = TRY(image::descriptor_from_json(index.at("manifests").at(0)));
  TRY(copy_in(store, lease, packed, folder));
  const image::Manifest manifest = TRY(image::read_manifest(store, packed));
  TRY(copy_in(store, lease, manifest.config, folder));
  for (const image::Descriptor& layer : manifest.layers) TRY(copy_in(store, lease, layer, folder));
  return packed;
}

}  // namespace builder
