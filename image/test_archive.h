#pragma once
/// Archives made in memory for tests: tar members, layers, OCI layouts and docker-save archives.

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "image/digest.h"
#include "image/images.h"

namespace image_test {

/// Brings all of `bytes` to the end of a blob.
inline base::Result<> append(image::PartialBlob& blob, std::string_view bytes) {
  while (!bytes.empty()) {
    const auto piece = TRY(blob.take([&](std::span<char> buffer) -> base::Result<size_t> {
      return bytes.copy(buffer.data(), buffer.size());
    }));
    bytes.remove_prefix(piece.size());
  }
  return {};
}

struct Member {
  std::string name;
  std::string content;
  char type = '0';
  std::string link;
  unsigned mode = 0644;
  unsigned user = 0;
  std::string device;  ///< `major minor` in octal, each 7 digits.
};

/// ustar, as POSIX.1-1988 has it; long names are the caller's to avoid.
inline std::string tar(const std::vector<Member>& members) {
  std::string all;
  for (const Member& member : members) {
    std::string head(512, '\0');
    const auto put = [&](size_t at, const std::string& text) {
      head.replace(at, text.size(), text);
    };
    put(0, member.name.substr(0, 100));
    put(100, fmt::format("{:07o}", member.mode));
    put(108, fmt::format("{:07o}", member.user));
    put(116, fmt::format("{:07o}", member.user));
    // x and g carry PAX records, L a long name: they too have content.
    const bool has_content = std::string_view("0xgL").find(member.type) != std::string_view::npos;
    put(124, fmt::format("{:011o}", has_content ? member.content.size() : 0));
    put(136, fmt::format("{:011o}", 1'700'000'000));
    put(148, "        ");
    head[156] = member.type;
    put(157, member.link.substr(0, 100));
    put(257, std::string("ustar\00000", 8));
    if (member.type == '3' || member.type == '4') {
      put(329, "0000001");
      put(337, "0000003");
    }
    unsigned sum = 0;
    for (const char c : head) sum += static_cast<unsigned char>(c);
    put(148, fmt::format("{:06o}", sum) + std::string("\0 ", 2));
    all += head;
    if (!has_content) continue;
    all += member.content;
    all.resize((all.size() + 511) / 512 * 512);
  }
  return all + std::string(1024, '\0');
}

/// PAX records for the member that follows: `{"path", "x"}` becomes `9 path=x\n`.
inline Member pax(const std::vector<std::pair<std::string, std::string>>& records) {
  Member member{.name = "PaxHeaders/x", .content = {}, .type = 'x'};
  for (const auto& [key, value] : records) {
    const size_t rest = key.size() + value.size() + 3;
    size_t size = rest + 1;
    while (std::to_string(size).size() + rest != size) ++size;
    member.content += fmt::format("{} {}={}\n", size, key, value);
  }
  return member;
}

/// One image of one architecture.
struct TestImage {
  std::vector<std::string> layers;  ///< tar streams, lowest first.
  nlohmann::json config = nlohmann::json::object();
  std::string architecture = "amd64";
  std::string name = "localhost/test:1";
  /// How the OCI form holds a layer.
  std::function<std::string(const std::string&)> packed = [](const std::string& layer) {
    return layer;
  };

  std::string config_text() const {
    nlohmann::json document = {
        {"architecture", architecture},
        {"os", "linux"},
        {"created", "2026-01-02T03:04:05Z"},
        {"config", config},
        {"rootfs", {{"type", "layers"}, {"diff_ids", nlohmann::json::array()}}}};
    for (const std::string& layer : layers)
      document["rootfs"]["diff_ids"].push_back(image::digest_of(layer));
    return document.dump();
  }
  std::string manifest_text() const {
    const std::string text = config_text();
    nlohmann::json document = {{"schemaVersion", 2},
                               {"config",
                                {{"mediaType", "application/vnd.oci.image.config.v1+json"},
                                 {"digest", image::digest_of(text)},
                                 {"size", text.size()}}},
                               {"layers", nlohmann::json::array()}};
    for (const std::string& layer : layers) {
      const std::string blob = packed(layer);
      document["layers"].push_back({{"mediaType", "application/vnd.oci.image.layer.v1.tar"},
                                    {"digest", image::digest_of(blob)},
                                    {"size", blob.size()}});
    }
    return document.dump();
  }
};

inline Member blob(const std::string& content) {
  return {.name = "blobs/sha256/" + std::string(image::digest_hex(image::digest_of(content))),
          .content = content};
}

inline std::vector<Member> oci_members(const TestImage& image) {
  const std::string manifest = image.manifest_text();
  std::vector<Member> members{
      {.name = "oci-layout", .content = R"({"imageLayoutVersion":"1.0.0"})"},
      blob(image.config_text()),
      blob(manifest)};
  for (const std::string& layer : image.layers) members.push_back(blob(image.packed(layer)));
  const nlohmann::json index = {
      {"schemaVersion", 2},
      {"manifests",
       {{{"mediaType", "application/vnd.oci.image.manifest.v1+json"},
         {"digest", image::digest_of(manifest)},
         {"size", manifest.size()},
         {"annotations", {{"org.opencontainers.image.ref.name", image.name}}}}}}};
  members.push_back({.name = "index.json", .content = index.dump()});
  return members;
}

inline std::vector<Member> docker_members(const TestImage& image) {
  std::vector<Member> members{{.name = "config.json", .content = image.config_text()}};
  nlohmann::json entry = {
      {"Config", "config.json"}, {"RepoTags", {image.name}}, {"Layers", nlohmann::json::array()}};
  for (size_t i = 0; i < image.layers.size(); ++i) {
    members.push_back({.name = fmt::format("{}/layer.tar", i), .content = image.layers[i]});
    entry["Layers"].push_back(fmt::format("{}/layer.tar", i));
  }
  members.push_back({.name = "manifest.json", .content = nlohmann::json::array({entry}).dump()});
  return members;
}

inline image::ArchiveSource source_of(std::string bytes) {
  return [bytes = std::move(bytes), at = size_t{0}](
             char* buffer, size_t capacity) mutable -> base::Result<size_t> {
    const size_t count = bytes.copy(buffer, std::min<size_t>(capacity, 1000), at);
    at += count;
    return count;
  };
}

}  // namespace image_test
