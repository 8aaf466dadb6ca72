#pragma once
/// SHA-256 digests in OCI form, and the hashing of streams.

#include <cstdint>
#include <string>
#include <string_view>

#include "base/sha256.h"

namespace image {

/// `sha256:` and 64 lower case hexadecimal digits: nothing else becomes a file name.
bool is_digest(std::string_view text);
/// The digits of a digest that passed is_digest().
std::string_view digest_hex(std::string_view digest);

using base::Sha256;

std::string digest_of(std::string_view bytes);

}  // namespace image
