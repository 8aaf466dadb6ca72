#pragma once
/// The headers of a tar archive: ustar, with a PAX record for whatever does not fit there. The same
/// entry gives the same bytes everywhere.

#include <string>
#include <string_view>

#include "guest/agent/build/tar_reader.h"

namespace agent {

/// Everything before the content of `entry`. Times are whole seconds, as other engines write them.
std::string tar_header(const TarEntry& entry);
/// What follows a content of `size` bytes.
std::string_view tar_padding(uint64_t size);
/// The end of an archive.
std::string_view tar_end();

}  // namespace agent
