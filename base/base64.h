#pragma once
/// Base64 (RFC 4648, with padding): bytes inside JSON.

#include <string>
#include <string_view>

#include "base/result.h"

namespace base {

std::string encode_base64(std::string_view bytes);
/// InvalidArgument for anything but the one encoding of some bytes.
Result<std::string> decode_base64(std::string_view text);

}  // namespace base
