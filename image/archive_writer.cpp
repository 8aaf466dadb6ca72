#include "image/archive_writer.h"

#include <algorithm>
#include <cerrno>
#include <set>
#include <span>

#include <sys/stat.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/fd.h"
#include "base/json.h"
#include "image/digest.h"
#include "image/links.h"
#include "image/reference.h"

namespace image {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;
using nlohmann::json;

constexpr size_t block_bytes = 512;
constexpr size_t piece_bytes = 256u << 10;
constexpr uint64_t octal_size_max = 077777777777;
constexpr size_t name_bytes_max = 100;

/// A tar of plain files and folders with short names, all of root and of the beginning of time.
class TarWriter {
 public:
  explicit TarWriter(const ArchiveSink& sink) : sink_(sink) {}

  Result<> folder(const std::string& name) { return sink_(header(name, 0, '5')); }

  Result<> text(const std::string& name, const std::string& content) {
    TRY(sink_(header(name, content.size(), '0')));
    TRY(sink_(content));
    return pad(content.size());
  }

  Result<> file(const std::string& name, int fd) {
    struct stat info {};
    if (::fstat(fd, &info) != 0) return base::fail_errno(errno, fmt::format("look at '{}'", name));
    const auto size = static_cast<uint64_t>(info.st_size);
    TRY(sink_(header(name, size, '0')));
    std::string buffer(piece_bytes, '\0');
    uint64_t left = size;
    while (left > 0) {
      const std::span<char> room(buffer.data(), std::min<uint64_t>(left, buffer.size()));
      const size_t count = TRY(base::read_some(fd, room));
      if (count == 0) return fail(ErrorCode::Io, "'{}' became shorter while it was read", name);
      TRY(sink_(std::string_view(buffer).substr(0, count)));
      left -= count;
    }
    return pad(size);
  }

  /// Two empty blocks end an archive.
  Result<> finish() { return sink_(std::string(2 * block_bytes, '\0')); }

 private:
  Result<> pad(uint64_t size) {
    const size_t over = size % block_bytes;
    return over == 0 ? Result<>() : sink_(std::string(block_bytes - over, '\0'));
  }

  static std::string header(const std::string& name, uint64_t size, char type) {
    std::string head(block_bytes, '\0');
    const auto put = [&](size_t at, std::string_view text) { head.replace(at, text.size(), text); };
    put(0, std::string_view(name).substr(0, name_bytes_max));
    put(100, type == '5' ? "0000755" : "0000644");
    put(108, "0000000");
    put(116, "0000000");
    if (size <= octal_size_max) {
      put(124, fmt::format("{:011o}", size));
    } else {  // as GNU tar writes it: binary, marked by the first bit
      head[124] = static_cast<char>(0x80);
      for (size_t i = 0; i < 8; ++i) head[135 - i] = static_cast<char>(size >> (8 * i));
    }
    put(136, "00000000000");
    put(148, "        ");
    head[156] = type;
    put(257, std::string_view("ustar\00000", 8));
    unsigned sum = 0;
    for (const char c : head) sum += static_cast<unsigned char>(c);
    put(148, std::string_view(fmt::format("{:06o}\0", sum)));
    head[154] = '\0';
    return head;
  }

  const ArchiveSink& sink_;
};

std::string blob_name(const std::string& digest) {
  return fmt::format("blobs/sha256/{}", digest_hex(digest));
}

json index_of(const std::vector<SavedImage>& images) {
  json manifests = json::array();
  for (const SavedImage& image : images) {
    json entry = {{"mediaType", image.descriptor.media_type},
                  {"digest", image.descriptor.digest},
                  {"size", image.descriptor.size}};
    if (image.references.empty()) manifests.push_back(entry);
    for (const std::string& reference : image.references) {
      entry["annotations"] = {{"io.containerd.image.name", reference},
                              {"org.opencontainers.image.ref.name", reference}};
      manifests.push_back(entry);
    }
  }
  return {{"schemaVersion", 2}, {"mediaType", index_media_type}, {"manifests", manifests}};
}

/// What docker's format can say of an image: a config, its layers, its names. Null for artifacts.
Result<json> docker_entry(const Store& store, const SavedImage& image, const Platform& host) {
  std::vector<Variant> variants = TRY(variants_of(store, image.descriptor));
  std::erase_if(variants, [](const Variant& variant) { return variant.platform.os == "unknown"; });
  if (variants.empty()) return json();
  const auto own = choose_variant(store, image.descriptor.digest, image.descriptor, host);
  const Manifest manifest =
      TRY(read_manifest(store, own ? own->descriptor : variants.front().descriptor));
  json layers = json::array();
  for (const Descriptor& layer : manifest.layers) layers.push_back(blob_name(layer.digest));
  json names = json::array();
  for (const std::string& reference : image.references)
    names.push_back(TRY(parse_reference(reference)).display());
  return json{
      {"Config", blob_name(manifest.config.digest)}, {"RepoTags", names}, {"Layers", layers}};
}

}  // namespace

Result<> write_archive(const Store& store, const std::vector<SavedImage>& images,
                       const Platform& host, const ArchiveSink& sink) {
  std::set<std::string> blobs;
  json docker = json::array();
  for (const SavedImage& image : images) {
    blobs.merge(TRY(blobs_of(store, image.descriptor.digest)));
    if (json entry = TRY(docker_entry(store, image, host)); !entry.is_null())
      docker.push_back(std::move(entry));
  }
  TarWriter tar(sink);
  TRY(tar.text("oci-layout", base::dump_json({{"imageLayoutVersion", "1.0.0"}})));
  TRY(tar.text("index.json", base::dump_json(index_of(images))));
  if (!docker.empty()) TRY(tar.text("manifest.json", base::dump_json(docker)));
  TRY(tar.folder("blobs/"));
  TRY(tar.folder("blobs/sha256/"));
  for (const std::string& digest : blobs) {
    const base::UniqueFd blob = TRY(store.open_blob(digest));
    TRY(tar.file(blob_name(digest), blob.get()));
  }
  return tar.finish();
}

}  // namespace image
