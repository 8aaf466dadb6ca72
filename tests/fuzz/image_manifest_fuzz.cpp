/// Manifests, indexes, configs, references and platforms of strangers: refused, or within bounds
/// and safe to use as what they are: digests as file names, names as names.

#include <cstdlib>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "image/manifest.h"
#include "image/reference.h"
#include "tests/fuzz/image_fuzz.h"

namespace {

void check(const image::Descriptor& descriptor) {
  if (!image::is_digest(descriptor.digest)) std::abort();
  if (image::digest_hex(descriptor.digest).find_first_not_of("0123456789abcdef") !=
      std::string_view::npos)
    std::abort();
}

void check_names(std::string_view text) {
  if (const auto reference = image::parse_reference(text)) {
    const auto again = image::parse_reference(reference->full());
    if (!again || *again != *reference) std::abort();
  }
  if (const auto platform = image::parse_platform(text)) {
    const auto again = image::parse_platform(platform->text());
    if (!again || *again != *platform) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text = fuzz::text_of(data, size);
  check_names(text);
  const auto document = base::parse_json(text);
  if (!document || !document->is_object()) return 0;
  const auto manifest = image::manifest_from_json(*document);
  if (manifest) {
    if (image::is_index(*document)) std::abort();  // two readers would see two images
    check(manifest->config);
    for (const image::Descriptor& layer : manifest->layers) check(layer);
  }
  if (image::is_index(*document))
    for (const auto& one : document->at("manifests"))
      if (const auto child = image::descriptor_from_json(one)) check(*child);
  if (const auto config = image::config_from_json(*document))
    for (const std::string& diff_id : config->diff_ids)
      if (!image::is_digest(diff_id)) std::abort();
  return 0;
}
