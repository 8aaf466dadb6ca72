#include "image/archive.h"

#include <algorithm>
#include <map>
#include <optional>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/limits.h"
#include "base/text.h"
#include "image/decompress.h"
#include "image/digest.h"
#include "image/manifest.h"
#include "image/reference.h"
#include "image/tar_reader.h"

namespace image {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;
using nlohmann::json;
namespace limits = base::limits;

constexpr std::string_view blob_folder = "blobs/sha256/";
constexpr uint32_t members_max = 100'000;
constexpr int links_followed_max = 8;
constexpr size_t invalid_members_shown_max = 10;
constexpr uint64_t content_bytes_max = limits::layer_unpacked_bytes_max;  ///< All members together.
constexpr const char* name_annotation = "io.containerd.image.name";
constexpr const char* tag_annotation = "org.opencontainers.image.ref.name";

/// A member's name without `./` and the like; what goes above the root stays inside it.
std::string plain_name(std::string_view path) {
  std::vector<std::string> kept;
  for (const std::string& piece : base::split(path, '/')) {
    if (piece.empty() || piece == ".") continue;
    if (piece != "..")
      kept.push_back(piece);
    else if (!kept.empty())
      kept.pop_back();
  }
  return base::join(kept, "/");
}

/// Where an extracting tool would be led outside its folder.
bool leads_outside(std::string_view path) {
  const std::vector<std::string> pieces = base::split(path, '/');
  return path.starts_with('/') || std::find(pieces.begin(), pieces.end(), "..") != pieces.end();
}

/// By the first bytes: what the name says is not to be trusted.
std::string compression_suffix(std::string_view bytes) {
  if (bytes.starts_with("\x1f\x8b")) return "+gzip";
  if (bytes.starts_with("\x28\xb5\x2f\xfd")) return "+zstd";
  return "";
}

std::string folder_of(const std::string& name) {
  const size_t slash = name.rfind('/');
  return slash == std::string::npos ? "" : name.substr(0, slash);
}

class Archive {
 public:
  Archive(Store& store, Lease& lease, const ArchiveOptions& options)
      : store_(store), lease_(lease), options_(options) {}

  Result<> read(ByteSource source) {
    TarReader members = TRY(TarReader::create(std::move(source)));
    uint32_t count = 0;
    while (const auto entry = TRY(members.next())) {
      if (++count > members_max)
        return fail(ErrorCode::InvalidArgument, "the archive has more than {} members",
                    members_max);
      TRY(take(*entry, members));
    }
    if (count == 0) return fail(ErrorCode::InvalidArgument, "the archive is empty");
    return {};
  }

  Result<ArchiveContent> content() {
    TRY(judge_invalid_members());
    // Docker writes both since 25; the index is the whole truth then.
    if (index_) {
      TRY_DURING(read_index(), "read the archive's index.json");
    } else if (docker_) {
      TRY_DURING(read_docker_manifest(), "read the archive's manifest.json");
    } else {
      return fail(ErrorCode::InvalidArgument,
                  "this is no image archive: it has neither index.json (OCI layout) nor "
                  "manifest.json (docker save)");
    }
    if (content_.images.empty())
      return fail(ErrorCode::InvalidArgument, "the archive lists no image");
    return std::move(content_);
  }

 private:
  struct Member {
    std::string digest;
    uint64_t size = 0;
    std::string media_type;
  };

  Result<> take(const TarEntry& entry, TarReader& members) {
    if (leads_outside(entry.path)) {
      if (invalid_members_.size() < invalid_members_shown_max)
        invalid_members_.push_back(base::escape_controls(entry.path));
      return {};
    }
    const std::string name = plain_name(entry.path);
    if (entry.type == TarType::Symlink)
      links_[name] = plain_name(folder_of(name) + "/" + entry.link);
    if (entry.type == TarType::HardLink) links_[name] = plain_name(entry.link);
    if (entry.type != TarType::File) return {};
    if (name == "index.json") return take_document(entry, members, index_);
    if (name == "manifest.json") return take_document(entry, members, docker_);
    if (name == "oci-layout" || name == "repositories") return {};
    std::optional<std::string> expected;
    if (name.starts_with(blob_folder)) {
      expected = "sha256:" + name.substr(blob_folder.size());
      if (!is_digest(*expected))
        return fail(ErrorCode::InvalidArgument, "'{}' is not named by a sha256 digest",
                    base::escape_controls(name));
    }
    return take_content(name, expected, static_cast<uint64_t>(entry.size), members);
  }

  Result<> take_document(const TarEntry& entry, TarReader& members, std::optional<json>& into) {
    if (entry.size > static_cast<int64_t>(limits::manifest_bytes_max))
      return fail(ErrorCode::InvalidArgument, "'{}' is larger than {} bytes",
                  base::escape_controls(entry.path), limits::manifest_bytes_max);
    std::string text;
    TRY(members.read_content([&](uint64_t, std::string_view bytes) -> Result<> {
      text += bytes;
      return {};
    }));
    into = TRY_DURING(base::parse_json(text), "read '{}'", base::escape_controls(entry.path));
    return {};
  }

  Result<> take_content(const std::string& name, const std::optional<std::string>& expected,
                        uint64_t size, TarReader& members);

  Result<Member> find(std::string name) const {
    for (int i = 0; i < links_followed_max; ++i) {
      if (const auto found = members_.find(name); found != members_.end()) return found->second;
      const auto link = links_.find(name);
      if (link == links_.end()) break;
      name = link->second;
    }
    return fail(ErrorCode::InvalidArgument, "the archive has no '{}'", base::escape_controls(name));
  }

  Result<> judge_invalid_members() {
    if (invalid_members_.empty()) return {};
    const std::string shown = base::join(invalid_members_, ", ");
    if (!options_.skip_invalid_members)
      return fail(ErrorCode::InvalidArgument,
                  "the archive has invalid members (rejected paths): {}; load the rest of it with "
                  "--force",
                  shown);
    content_.notes.push_back(fmt::format("invalid members were left out: {}", shown));
    return {};
  }

  Result<> read_index();
  Result<> read_docker_manifest();
  Result<Descriptor> docker_image(const json& entry);
  void name_image(ArchiveImage& image, const std::string& name);

  Store& store_;
  Lease& lease_;
  const ArchiveOptions options_;
  std::optional<json> index_;
  std::optional<json> docker_;
  std::map<std::string, Member> members_;
  std::map<std::string, std::string> links_;
  std::vector<std::string> invalid_members_;  ///< The first of them.
  ArchiveContent content_;
  uint64_t content_bytes_ = 0;
};

Result<> Archive::take_content(const std::string& name, const std::optional<std::string>& expected,
                               uint64_t size, TarReader& members) {
  if (size > content_bytes_max - content_bytes_)
    return fail(ErrorCode::InvalidArgument, "the archive has more than {} MiB: '{}' goes over it",
                content_bytes_max >> 20, base::escape_controls(name));
  content_bytes_ += size;
  uint64_t at = 0;
  std::string media_type = layer_media_type;
  bool first = true;
  PieceWriter writer = TRY(store_.begin_put(lease_));
  TRY(members.read_content([&](uint64_t offset, std::string_view bytes) -> Result<> {
    if (offset != at)  // no tool writes them, and a small archive would fill the disk
      return fail(ErrorCode::InvalidArgument, "'{}' has holes", base::escape_controls(name));
    at += bytes.size();
    if (std::exchange(first, false)) media_type += compression_suffix(bytes);
    return writer.write_at(offset, bytes);
  }));
  if (at != size)
    return fail(ErrorCode::InvalidArgument, "'{}' ends too early", base::escape_controls(name));
  const Descriptor stored = TRY_DURING(store_.finish_put(std::move(writer), expected),
                                       "take '{}' from the archive", base::escape_controls(name));
  members_[name] = {.digest = stored.digest, .size = stored.size, .media_type = media_type};
  return {};
}

void Archive::name_image(ArchiveImage& image, const std::string& name) {
  if (name.empty()) return;
  const Result<Reference> reference = parse_reference(name);
  if (!reference) {
    content_.notes.push_back(fmt::format("a name was left out: {}", reference.error().to_string()));
    return;
  }
  const std::string full = reference->full();
  if (std::find(image.references.begin(), image.references.end(), full) == image.references.end())
    image.references.push_back(full);
}

Result<> Archive::read_index() {
  if (!is_index(*index_)) return fail(ErrorCode::InvalidArgument, "it has no list of manifests");
  std::map<std::string, size_t> by_digest;
  for (const json& one : index_->at("manifests")) {
    const Descriptor descriptor = TRY(descriptor_from_json(one));
    const auto [at, is_new] = by_digest.emplace(descriptor.digest, content_.images.size());
    if (is_new) content_.images.push_back({.references = {}, .descriptor = descriptor});
    ArchiveImage& image = content_.images[at->second];
    const json annotations = one.value("annotations", json::object());
    const std::string full = base::json_string_or(annotations, name_annotation, "");
    name_image(image, full.empty() ? base::json_string_or(annotations, tag_annotation, "") : full);
  }
  return {};
}

Result<Descriptor> Archive::docker_image(const json& entry) {
  const Member config = TRY(find(plain_name(TRY(base::json_string(entry, "Config")))));
  json manifest = {
      {"schemaVersion", 2},
      {"mediaType", manifest_media_type},
      {"config",
       {{"mediaType", config_media_type}, {"digest", config.digest}, {"size", config.size}}},
      {"layers", json::array()}};
  const auto layers = entry.find("Layers");
  if (layers == entry.end() || !layers->is_array())
    return fail(ErrorCode::InvalidArgument, "an image has no list of layers");
  for (const json& layer : *layers) {
    if (!layer.is_string()) return fail(ErrorCode::InvalidArgument, "a layer's name is no text");
    const Member member = TRY(find(plain_name(layer.get<std::string>())));
    manifest["layers"].push_back(
        {{"mediaType", member.media_type}, {"digest", member.digest}, {"size", member.size}});
  }
  return store_.put_text(lease_, base::dump_json(manifest), manifest_media_type);
}

Result<> Archive::read_docker_manifest() {
  if (!docker_->is_array()) return fail(ErrorCode::InvalidArgument, "it is no list");
  for (const json& entry : *docker_) {
    if (!entry.is_object()) return fail(ErrorCode::InvalidArgument, "an image is no object");
    ArchiveImage image;
    image.descriptor = TRY(docker_image(entry));
    const auto tags = entry.find("RepoTags");
    if (tags != entry.end() && tags->is_array())
      for (const json& tag : *tags)
        if (tag.is_string()) name_image(image, tag.get<std::string>());
    content_.images.push_back(std::move(image));
  }
  return {};
}

}  // namespace

Result<ArchiveContent> read_archive(Store& store, Lease& lease, ByteSource source,
                                    const ArchiveOptions& options) {
  Archive archive(store, lease, options);
  TRY(archive.read(TRY(decompressed(std::move(source)))));
  return archive.content();
}

}  // namespace image
