#include "image/digest.h"

#include <algorithm>

namespace image {
namespace {

constexpr std::string_view prefix = "sha256:";
constexpr size_t hex_digits = 64;

bool is_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }

}  // namespace

bool is_digest(std::string_view text) {
  return text.size() == prefix.size() + hex_digits && text.starts_with(prefix) &&
         std::all_of(text.begin() + static_cast<ptrdiff_t>(prefix.size()), text.end(), is_hex);
}

std::string_view digest_hex(std::string_view digest) { return digest.substr(prefix.size()); }

std::string digest_of(std::string_view bytes) { return base::sha256_of(bytes); }

}  // namespace image
